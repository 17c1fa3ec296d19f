"""The page cache: hits, modes, ages, negative answers, revalidation, single flight, and what of it
the origin sees."""

import http.server
import json
import socket
import subprocess
import threading
import unittest

import invariants
import server
from client import Connection, ask, origin_json, request, results, stream
from server import LOADTEST

FIRST = {"robots": "ignore"}


class Cached(unittest.TestCase):
    """A server of its own, so that what was cached before is known: nothing."""

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.origin = server.shared()[1]
        cls.server = server.Server(**cls.settings)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.output()

    def crawl(self, urls, **options):
        _, events = stream(self.server, urls, **FIRST, **options)
        self.assertEqual(invariants.broken(events, len(urls)), [])
        return events

    def one(self, url, **options):
        return results(self.crawl([url], **options))[0]

    def hits(self, url):
        """How often the origin was asked for a URL."""
        path = url.removeprefix(self.origin.url)
        seen = origin_json(self.origin, f"/_stats?path={path.split('?')[0]}")[1]["paths"]
        return seen.get(path, {"hits": 0})["hits"]

    def metric(self, name):
        for line in ask(self.server, "GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split(" ")[1])
        raise AssertionError(f"no metric {name}")

    def uses(self, url, *asked):
        """What the cache said for one request after the other."""
        return [self.one(url, **options)["cache"] for options in asked]


class Hits(Cached):
    def test_the_second_time_the_origin_is_not_asked(self):
        url = self.origin.page(501)
        first, second = self.one(url), self.one(url)
        self.assertEqual((first["cache"], first["from_cache"]), ("miss", False))
        self.assertEqual((second["cache"], second["from_cache"]), ("hit", True))
        self.assertEqual((first["gate_decision"], second["gate_decision"]), ("approved", "cached"))
        self.assertEqual(self.hits(url), 1)
        for same in ("document", "quality_score", "status", "final_url", "bytes", "cache_key"):
            self.assertEqual(first[same], second[same], same)
        self.assertEqual(len(first["cache_key"]), 32)
        self.assertEqual(second["timings_us"]["extract"], 0)

    def test_the_summary_counts_them(self):
        urls = [self.origin.page(n) for n in range(510, 514)]
        self.crawl(urls[:3])
        summary = self.crawl(urls)[-1]
        self.assertEqual((summary["from_cache"], summary["cache_hit_rate"]), (3, 0.75))

    def test_over_every_transport(self):
        url = self.origin.page(515)
        self.crawl([url])
        answer = ask(self.server, "POST", "/crawl", {"urls": [url, url], "options": FIRST}).json()
        self.assertEqual([part["result"]["cache"] for part in answer["results"]], ["hit", "hit"])
        fields = ("Accept: text/event-stream",)
        sse = ask(self.server, "POST", "/crawl/stream", {"urls": [url], "options": FIRST}, fields)
        data = [line[6:] for line in sse.body.split(b"\n") if line.startswith(b"data: ")]
        self.assertEqual([json.loads(text)["type"] for text in data], ["metadata", "result", "summary"])
        self.assertEqual(json.loads(data[1])["result"]["cache"], "hit")

    def test_a_cached_page_leaves_in_one_write(self):
        """Head, metadata, result and summary: all are ready before anything is sent."""
        url = self.origin.page(516, size=5000)
        self.crawl([url])
        for accept in ("application/x-ndjson", "text/event-stream"):
            body = {"urls": [url], "options": FIRST}
            with Connection(self.server.address) as connection:
                connection.send(request("POST", "/crawl/stream", body, (f"Accept: {accept}",)))
                head = connection.read_head()
                sent = b"".join(connection.read_body(head))
                whole = ask(self.server, "GET", f"/streams/{head.field('x-stream-id')}/trace").json()
            sends = [record for record in whole["records"] if record["mark"] in ("head_sent", "flushed")]
            self.assertEqual(len(sends), 1, sends)
            self.assertGreater(sends[0]["value"], len(sent), "head and body")
            self.assertIn(b'"cache":"hit"', sent)

    def test_a_long_cached_stream_is_whole_and_in_order(self):
        urls = [self.origin.page(n % 20, size=3000) for n in range(600)]
        self.crawl(urls[:20])
        for order in ("completion", "input"):
            events = self.crawl(urls, order=order)
            self.assertEqual(events[-1]["from_cache"], 600)
            indices = [event["index"] for event in events if event["type"] == "result"]
            self.assertEqual(indices, list(range(600)))

    def test_a_slow_reader_gets_all_of_a_cached_stream(self):
        urls = [self.origin.page(n, size="150k") for n in range(530, 540)]
        self.crawl(urls)
        body = {"urls": urls * 30, "options": FIRST}
        with Connection(self.server.address, receive_buffer=4096) as connection:
            connection.send(request("POST", "/crawl/stream", body))
            events = [json.loads(line) for line in connection.read_lines(connection.read_head())]
        self.assertEqual(invariants.broken(events, 300), [])
        self.assertEqual(events[-1]["from_cache"], 300)

    def test_what_changes_the_output_is_another_page(self):
        url = self.origin.page(520)
        variants = [
            {},
            {"formats": ["text"]},
            {"extractor": "full"},
            {"user_agent": "probe/2"},
            {"headers": {"Authorization": "Bearer one"}},
            {"headers": {"Authorization": "Bearer two"}},
            {"headers": {"Cookie": "a=1"}},
            {"max_body_bytes": 1_000_000},
            {"redirects": 2},
        ]
        self.assertEqual(self.uses(url, *variants), ["miss"] * len(variants))
        self.assertEqual(self.uses(url, *variants), ["hit"] * len(variants))
        keys = {self.one(url, **variant)["cache_key"] for variant in variants}
        self.assertEqual(len(keys), len(variants))
        same = [{"formats": ["metadata", "links", "text", "markdown"]}, {"timeout_ms": 9000}]
        same.append({"concurrency": 1, "order": "input", "progress_ms": 0})
        self.assertEqual(self.uses(url, *same), ["hit"] * 3)

    def test_a_url_is_known_by_its_normal_form(self):
        url = self.origin.page(521)
        self.crawl([url])
        for same in (url + "#part", url.replace("http://", "HTTP://"), url.replace("/page", "/x/../page")):
            result = self.one(same)
            self.assertEqual((result["cache"], result["url"]), ("hit", same))
        self.assertEqual(self.hits(url), 1)

    def test_health_and_metrics_show_it(self):
        url = self.origin.page(522)
        names = ["forebay_cache_entries", "forebay_cache_bytes"]
        names += [f'forebay_cache_lookups_total{{outcome="{it}"}}' for it in ("hit", "miss")]
        before = {name: self.metric(name) for name in names}
        self.uses(url, {}, {})
        after = {name: self.metric(name) for name in names}
        self.assertEqual(after[names[0]], before[names[0]] + 1)
        self.assertGreater(after[names[1]], before[names[1]])
        self.assertEqual([after[name] - before[name] for name in names[2:]], [1, 1])
        cache = ask(self.server, "GET", "/healthz").json()["cache"]
        self.assertEqual((cache["state"], cache["bytes_max"]), ("memory", 256 * 1024 * 1024))
        self.assertGreater(cache["bytes"], 0)


class Modes(Cached):
    def test_bypass_neither_reads_nor_writes(self):
        url = self.origin.page(601)
        bypass = {"cache_mode": "bypass"}
        self.assertEqual(self.uses(url, bypass, {}, bypass, {}), ["bypass", "miss", "bypass", "hit"])
        self.assertEqual(self.hits(url), 3)

    def test_read_only_does_not_write(self):
        url = self.origin.page(602)
        read_only = {"cache_mode": "read_only"}
        uses = self.uses(url, read_only, {}, read_only)
        self.assertEqual(uses, ["miss", "miss", "hit"])

    def test_write_only_does_not_read(self):
        url = self.origin.page(603)
        write_only = {"cache_mode": "write_only"}
        self.assertEqual(self.uses(url, write_only, {}, write_only), ["bypass", "hit", "bypass"])
        self.assertEqual(self.hits(url), 2)

    def test_enabled_is_read_through(self):
        url = self.origin.page(604)
        self.assertEqual(self.uses(url, {"cache_mode": "enabled"}, {"cache_mode": "read_through"}), ["miss", "hit"])

    def test_max_age(self):
        url = self.origin.page(605)
        self.crawl([url])
        self.assertEqual(self.uses(url, {"max_age_s": 0}, {"max_age_s": 60}), ["stale", "hit"])
        self.assertEqual(self.hits(url), 2)


class Revalidation(Cached):
    def test_by_etag_the_origin_answers_304(self):
        url = self.origin.page(701, etag=1)
        first = self.one(url)
        again = self.one(url, cache_mode="revalidate")
        self.assertEqual((again["cache"], again["from_cache"]), ("revalidated", True))
        self.assertEqual((again["status"], again["document"]), (200, first["document"]))
        _, heads = origin_json(self.origin, "/_requests?path=/page/701")
        conditions = [dict(map(tuple, head["fields"])).get("if-none-match") for head in heads]
        self.assertEqual(len(conditions), 2)
        self.assertIsNone(conditions[0])
        self.assertIsNotNone(conditions[1])
        self.assertEqual(self.one(url)["cache"], "hit")

    def test_by_the_date_of_its_change_alone(self):
        url = self.origin.page(707, last_modified=1)
        first = self.one(url)
        again = self.one(url, cache_mode="revalidate")
        self.assertEqual((again["cache"], again["status"], again["document"]), ("revalidated", 200, first["document"]))
        self.assertEqual(self.uses(url, {"max_age_s": 0}, {}), ["revalidated", "hit"])
        _, heads = origin_json(self.origin, "/_requests?path=/page/707")
        fields = [dict(map(tuple, head["fields"])) for head in heads]
        date = "Thu, 01 Jan 2026 00:00:00 GMT"
        self.assertEqual([head.get("if-modified-since") for head in fields], [None, date, date])
        self.assertEqual([head.get("if-none-match") for head in fields], [None] * 3)

    def test_a_page_too_old_is_asked_about_and_young_again(self):
        url = self.origin.page(702, etag=1)
        self.crawl([url])
        self.assertEqual(self.uses(url, {"max_age_s": 0}, {"max_age_s": 60}), ["revalidated", "hit"])

    def test_a_page_without_validators_is_fetched_anew(self):
        url = self.origin.page(703)
        self.crawl([url])
        self.assertEqual(self.uses(url, {"cache_mode": "revalidate"}), ["stale"])

    def test_behind_a_redirect_the_final_url_is_asked(self):
        url = self.origin.redirect(1, etag=1)
        first = self.one(url)
        again = self.one(url, cache_mode="revalidate")
        self.assertEqual(again["cache"], "revalidated")
        self.assertEqual(again["final_url"], first["final_url"])
        self.assertNotEqual(again["final_url"], url)

    def test_a_clients_own_condition_is_its_own(self):
        url = self.origin.page(704, etag=1)
        tag = {"If-None-Match": '"something"'}
        self.assertEqual(self.uses(url, {"headers": tag}, {"headers": tag, "max_age_s": 0}), ["miss", "stale"])


class Failing(http.server.BaseHTTPRequestHandler):
    """Answers with a page, and from the second request on with 503."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        status = 200 if self.asked == 1 else 503
        body = b"<!DOCTYPE html><title>Weir</title><p>The gate opens at noon and closes at night.</p>"
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class OriginInTrouble(Cached):
    def test_a_failure_does_not_push_out_a_page_in_its_time(self):
        Failing.asked = 0
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as origin:
            threading.Thread(target=origin.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{origin.server_address[1]}/"
            found = [self.one(url), self.one(url, max_age_s=0), self.one(url)]
            origin.shutdown()
        self.assertEqual([result["status"] for result in found], [200, 503, 200])
        self.assertEqual([result["cache"] for result in found], ["miss", "stale", "hit"])


class Freshness(Cached):
    def test_the_origins_word_counts_where_it_is_asked_for(self):
        http = {"freshness": "http"}
        kept = self.origin.page(801, header="Cache-Control:max-age=600")
        over = self.origin.page(802, header="Cache-Control:max-age=0")
        aged = self.origin.at("/page/803?header=Cache-Control:max-age=600&header=Age:700")
        silent = self.origin.page(804)
        for url, uses in [(kept, "hit"), (over, "stale"), (aged, "stale"), (silent, "hit")]:
            self.assertEqual(self.uses(url, http, http, {}), ["miss", uses, "hit"], url)

    def test_no_store_is_not_stored(self):
        url = self.origin.page(805, header="Cache-Control:no-store")
        http = {"freshness": "http"}
        self.assertEqual(self.uses(url, http, http, {}, {}, http), ["miss", "miss", "miss", "hit", "stale"])


class Times(Cached):
    settings = {
        "cache_ttl_s": 3600,
        "cache_ttl_redirect_s": 3600,
        "cache_ttl_4xx_s": 1,
        "cache_ttl_5xx_s": 0,
        "cache_ttl_error_s": 3600,
    }

    def test_an_error_status_is_replayed_for_its_time(self):
        url = self.origin.status(404)
        first, second = self.one(url), self.one(url)
        self.assertEqual((first["status"], second["status"]), (404, 404))
        self.assertEqual((second["cache"], second["gate_decision"]), ("hit", "cached"))
        self.assertTrue(server.wait_until(lambda: self.one(url)["cache"] == "stale"))

    def test_a_time_of_nothing_keeps_nothing(self):
        self.assertEqual(self.uses(self.origin.status(503), {}, {}), ["miss", "miss"])

    def test_a_failure_is_replayed(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        first, second = self.one(url), self.one(url)
        self.assertEqual(second["error"], first["error"])
        self.assertEqual((second["cache"], second["gate_decision"]), ("hit", "failed"))

    def test_a_redirect_that_is_not_followed_is_replayed(self):
        url = self.origin.redirect(1)
        first, second = self.one(url, redirects=0), self.one(url, redirects=0)
        self.assertEqual(second["error"]["code"], "too_many_redirects")
        self.assertEqual((first["cache"], second["cache"]), ("miss", "hit"))
        self.assertEqual(self.hits(url), 1)

    def test_what_our_rules_refuse_is_not_kept(self):
        uses = self.uses("http://10.0.0.1/", {}, {})
        self.assertEqual(uses, ["miss", "miss"])

    def test_a_requests_own_timeout_says_nothing_to_others(self):
        url = self.origin.page(901, latency="500ms")
        self.assertEqual(self.one(url, timeout_ms=100)["error"]["code"], "url_timeout")
        self.assertEqual(self.uses(url, {}, {}), ["miss", "hit"])


class SingleFlight(Cached):
    def test_a_thousand_at_once_make_one_fetch(self):
        """Sixty-three clients with sixteen of the same URL each, on all cores: as many as a stream may
        have under way before it knows of a page's size."""
        url = self.origin.page(1001, latency="2s")
        found = []

        def client():
            found.extend(results(self.crawl([url] * 16, concurrency=16)).values())

        threads = [threading.Thread(target=client) for _ in range(63)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(len(found), 1008)
        self.assertEqual([result["error"] for result in found], [None] * 1008)
        self.assertEqual(self.hits(url), 1)
        uses = [result["cache"] for result in found]
        self.assertEqual((uses.count("miss"), uses.count("hit")), (1, 1007))
        self.assertGreater(self.metric("forebay_cache_joins_total"), 500)
        self.assertEqual(ask(self.server, "GET", "/healthz").json()["cache"]["flights"], 0)

    def test_a_thousand_requests_at_once_make_one_fetch(self):
        """Each on a connection of its own, all before the origin answers."""
        url = self.origin.page(1006, latency="6s")
        joined = self.metric("forebay_cache_joins_total")
        command = [LOADTEST, "run", "--url", self.server.url, "--transport", "ndjson", "--json", "-", "--body",
                   json.dumps({"urls": [url], "options": {**FIRST, "timeout_ms": 60_000}}), "--closed", "1000", "-n", "1000", "--timeout", "60s"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout[-1000:] + done.stderr[-1000:])
        counts = json.loads(done.stdout)["groups"][0]["counts"]
        self.assertEqual((counts["ok"], counts["results"]), (1000, 1000))
        self.assertEqual(self.hits(url), 1)
        self.assertEqual(self.metric("forebay_cache_joins_total") - joined, 999)

    def begin(self, url, **options):
        """A stream under way, whose page is being fetched or waited for."""
        connection = Connection(self.server.address)
        options = {**FIRST, "resume_window_s": 0, **options}
        connection.send(request("POST", "/crawl/stream", {"urls": [url], "options": options}))
        head = connection.read_head()
        self.assertEqual(head.status, 200)
        lines = connection.read_lines(head)
        self.assertEqual(json.loads(next(lines))["type"], "metadata")
        return connection, lines

    def end(self, lines):
        return results([json.loads(line) for line in lines])[0]

    def test_a_cancelled_leader_hands_over(self):
        url = self.origin.page(1002, latency="600ms")
        leader, _ = self.begin(url)
        self.assertTrue(server.wait_until(lambda: self.hits(url) == 1))
        others = [self.begin(url) for _ in range(6)]
        leader.reset()
        found = [self.end(lines) for _, lines in others]
        for connection, _ in others:
            connection.close()
        self.assertEqual([result["error"] for result in found], [None] * 6)
        self.assertEqual(self.hits(url), 2)

    def test_a_cancelled_waiter_takes_nobody_with_it(self):
        url = self.origin.page(1003, latency="600ms")
        leader, lines = self.begin(url)
        self.assertTrue(server.wait_until(lambda: self.hits(url) == 1))
        others = [self.begin(url) for _ in range(6)]
        for connection, _ in others[:5]:
            connection.reset()
        found = [self.end(lines), self.end(others[5][1])]
        leader.close()
        others[5][0].close()
        self.assertEqual([result["cache"] for result in found], ["miss", "hit"])
        self.assertEqual(self.hits(url), 1)

    def test_a_leader_whose_time_is_up_hands_over(self):
        url = self.origin.page(1004, latency="800ms")
        leader, lines = self.begin(url, timeout_ms=300)
        self.assertTrue(server.wait_until(lambda: self.hits(url) == 1))
        other, other_lines = self.begin(url)
        self.assertEqual(self.end(lines)["error"]["code"], "url_timeout")
        self.assertIsNone(self.end(other_lines)["error"])
        leader.close()
        other.close()

    def test_a_waiters_own_time_is_its_own(self):
        url = self.origin.page(1005, latency="800ms")
        leader, lines = self.begin(url)
        self.assertTrue(server.wait_until(lambda: self.hits(url) == 1))
        self.assertEqual(self.one(url, timeout_ms=100)["error"]["code"], "url_timeout")
        self.assertIsNone(self.end(lines)["error"])
        leader.close()


class Small(Cached):
    settings = {"cache_bytes_max": 300_000}

    def test_its_bytes_are_bounded(self):
        self.crawl([self.origin.page(n, size=20_000) for n in range(1100, 1160)])
        cache = ask(self.server, "GET", "/healthz").json()["cache"]
        self.assertLessEqual(cache["bytes"], 300_000)
        self.assertGreater(cache["entries"], 0)
        self.assertGreater(cache["evictions"], 0)


class Off(Cached):
    settings = {"cache_bytes_max": 0}

    def test_without_a_cache_every_request_fetches(self):
        url = self.origin.page(1200)
        self.assertEqual(self.uses(url, {}, {}), ["miss", "miss"])
        self.assertEqual(ask(self.server, "GET", "/healthz").json()["cache"]["state"], "off")


if __name__ == "__main__":
    unittest.main()
