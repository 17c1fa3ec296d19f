"""`POST /crawl/stream` and `POST /crawl` on the synthetic web: API section 3's invariants on streams
of 1, 100 and 1,000 URLs, order, deadlines, concurrency, cancellation, refusals."""

import json
import socket
import threading
import unittest

import client
import invariants
import server
from client import Connection, ask, origin_json, request, results, stream

ALONE = True  # good pages must be done in time beside hostile ones

GOOD = "good"
# An address that every guard must refuse, and one that nobody may be allowed (RFC 5737).
PRIVATE = "http://10.0.0.1/"
DOCUMENTATION = "http://192.0.2.1/"


def dead_port():
    """A URL on loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def kinds(origin):
    """One URL of each kind, with what must become of it: GOOD, or the codes that it may get."""
    failed = {"connect_failed", "read_timeout", "http_malformed"}
    late = {"read_timeout", "url_timeout"}
    costly = {"extract_timeout", "extract_memory", "extract_failed", "body_too_large", "url_timeout"}
    return [
        (origin.page(kind="article"), GOOD),
        (origin.page(1, kind="docs", encoding="gzip"), GOOD),
        (origin.page(2, kind="forum", encoding="br", framing="chunked"), GOOD),
        (origin.page(3, kind="listing", encoding="zstd"), GOOD),
        (origin.page(4, encoding="deflate", latency="100ms"), GOOD),
        (origin.page(5, framing="close"), GOOD),
        (origin.page(6, size="900k"), GOOD),
        (origin.page(7, latency="uniform:5ms,60ms", body_latency="20ms"), GOOD),
        (origin.page(8, interim=2), GOOD),
        (origin.page(9, drop=1), GOOD),
        (origin.charset("shift_jis", "meta"), GOOD),
        (origin.charset("windows-1251", "header"), GOOD),
        (origin.charset("euc-kr", "none"), GOOD),
        (origin.status(404), GOOD),
        (origin.status(500), GOOD),
        (origin.redirect(3), GOOD),
        (origin.redirect(3, status=308, form="absolute"), GOOD),
        (origin.redirect(20), {"too_many_redirects"}),
        (origin.at("/loop", length=2), {"too_many_redirects"}),
        (origin.at("/redirect", to=PRIVATE), {"blocked_egress"}),
        (PRIVATE, {"blocked_egress"}),
        (DOCUMENTATION, {"blocked_egress"}),
        ("http://[::ffff:169.254.169.254]/latest", {"blocked_egress"}),
        (dead_port(), {"connect_failed"}),
        ("http://no-such-host.invalid/", {"dns_failed", "url_timeout"}),  # the latter without a network
        (origin.page(10, type="application/pdf"), {"unsupported_type"}),
        (origin.at("/reset", at="head"), failed),
        (origin.at("/reset", at="body"), failed),
        (origin.at("/close", at="midhead"), failed),
        (origin.at("/stall", at="head", for_="1h"), late),
        (origin.at("/endless", what="body"), {"body_too_large", "url_timeout", "read_timeout"}),
        (origin.at("/endless", what="headers"), {"http_malformed", "url_timeout", "read_timeout"}),
        (origin.at("/bomb", encoding="gzip", size="100m"), {"body_too_large", "decode_failed"}),
        (origin.malformed("garbage"), {"http_malformed"}),
        (origin.malformed("bad-chunk-size"), {"http_malformed"}),
        (origin.malformed("bad-gzip"), {"decode_failed", "http_malformed"}),
        (origin.hostile("amps"), costly),
        (origin.hostile("nested"), costly),
    ]


class Streams(unittest.TestCase):
    target = "/crawl/stream"

    @classmethod
    def setUpClass(cls):
        cls.server, cls.origin = server.shared()

    def crawl(self, urls, **options):
        """Events of a stream that must hold every invariant."""
        options.setdefault("timeout_ms", 5000)
        _, events = stream(self.server, urls, self.target, **options)
        self.assertEqual(invariants.broken(events, len(urls)), [])
        return events

    def expect(self, mixed, events):
        for index, result in results(events).items():
            url, expected = mixed[index]
            code = result["error"] and result["error"]["code"]
            if expected == GOOD:
                self.assertIsNone(code, f"{url}: {result['error']}")
                self.assertIsNotNone(result["document"], url)
            elif expected is not None and code is not None:
                self.assertIn(code, expected, url)
            elif expected is not None and "/hostile/" not in url:
                self.fail(f"{url}: no error, expected one of {expected}")


class OneUrl(Streams):
    def test_the_result_is_the_page(self):
        url = self.origin.page(1, size=20000)
        head, events = stream(self.server, [url])
        self.assertEqual(invariants.broken(events, 1), [])
        self.assertEqual(head.field("content-type").split(";")[0], "application/x-ndjson")
        self.assertEqual(head.field("cache-control"), "no-cache, no-transform")
        self.assertEqual(head.field("x-accel-buffering"), "no")
        self.assertEqual(head.field("x-stream-id"), events[0]["stream_id"])
        self.assertEqual(head.field("x-request-id"), events[0]["request_id"])
        result = results(events)[0]
        self.assertEqual((result["url"], result["final_url"], result["status"]), (url, url, 200))
        self.assertEqual(result["gate_decision"], "approved")
        self.assertEqual(result["bytes"], {"wire": result["bytes"]["wire"], "body": 20000})
        self.assertGreater(result["document"]["word_count"], 100)
        self.assertTrue(result["document"]["title"] and result["document"]["markdown"])
        for link in result["document"]["links"]:
            self.assertTrue(link["href"].startswith(("http://", "https://")), link)
        self.assertEqual(events[-1]["status"], "completed")

    def test_metadata_comes_before_any_work(self):
        url = self.origin.at("/stall", at="head", for_="1h")
        with Connection(self.server.address) as connection:
            options = {"resume_window_s": 0}
            connection.send(request("POST", "/crawl/stream", {"urls": [url], "options": options}))
            head = connection.read_head()
            first = json.loads(next(connection.read_lines(head)))
        self.assertEqual((first["type"], first["seq"], first["total_urls"]), ("metadata", 0, 1))

    def test_redirects_end_at_the_final_url(self):
        result = results(self.crawl([self.origin.redirect(3)]))[0]
        self.assertEqual(result["final_url"], self.origin.page(0))

    def test_an_error_status_is_a_page(self):
        result = results(self.crawl([self.origin.status(404)]))[0]
        self.assertEqual((result["status"], result["error"]), (404, None))

    def test_the_same_url_twice_is_two_results(self):
        url = self.origin.page(3)
        events = self.crawl([url, url])
        self.assertEqual({r["url"] for r in results(events).values()}, {url})

    def test_every_malformed_answer_costs_its_page_only(self):
        urls = [self.origin.malformed(name) for name in self.origin.names("malformed")]
        events = self.crawl(urls + [self.origin.page(1)], timeout_ms=3000)
        self.assertIsNone(results(events)[len(urls)]["error"])

    def test_every_hostile_page_costs_its_page_only(self):
        urls = [self.origin.hostile(name, size="300k") for name in self.origin.names("hostile")]
        events = self.crawl(urls + [self.origin.page(1)], timeout_ms=30000)
        self.assertIsNone(results(events)[len(urls)]["error"])

    def test_the_connection_goes_on_after_a_stream(self):
        body = {"urls": [self.origin.page(1)]}
        with Connection(self.server.address) as connection:
            connection.send(request("POST", "/crawl/stream", body) + request("GET", "/livez"))
            self.assertEqual(connection.read_response().status, 200)
            self.assertEqual(connection.read_response().status, 200)

    def test_curl_reads_it_too(self):
        body = json.dumps({"urls": [self.origin.page(1)]})
        fields = ("-H", "Content-Type: application/json", "--data", body, "--no-buffer")
        lines = client.curl(*fields, self.server.url + "/crawl/stream").split(b"\n")
        self.assertEqual(lines.pop(), b"")
        self.assertEqual(invariants.broken([json.loads(line) for line in lines], 1), [])


class ManyUrls(Streams):
    def mixed(self, count):
        """Every kind, the dear ones few, and pages between them."""
        mixed = kinds(self.origin)[:count]
        mixed += [(self.origin.page(n, size=3000 + n % 7000), GOOD) for n in range(count - len(mixed))]
        step = 37  # prime to the counts in use: spreads the kinds over the stream
        return [mixed[n * step % count] for n in range(count)]

    def run_mixed(self, count, **options):
        mixed = self.mixed(count)
        events = self.crawl([url for url, _ in mixed], timeout_ms=6000, **options)
        self.expect(mixed, events)
        self.assertEqual(events[-1]["type"], "summary")
        return events

    def test_100_in_order_of_completion(self):
        self.run_mixed(100, order="completion", concurrency=16)

    def test_100_in_order_of_input(self):
        events = self.run_mixed(100, order="input", concurrency=16)
        indices = [event["index"] for event in events if event["type"] == "result"]
        self.assertEqual(indices, sorted(indices))

    @unittest.skipIf(server.QUICK, "takes a while")
    def test_1000(self):
        for order in ("completion", "input"):
            with self.subTest(order):
                self.run_mixed(1000, order=order, concurrency=64)

    def test_streams_side_by_side(self):
        """Eight clients, one of them on hostile pages only."""
        failures = []

        def one(urls):
            try:
                self.crawl(urls, timeout_ms=5000)
            except Exception as error:  # shown below, in the test's own thread
                failures.append(error)

        groups = [[self.origin.page(n * 50 + k) for k in range(50)] for n in range(7)]
        groups.append([self.origin.hostile(name) for name in ("amps", "nested", "text", "entities")])
        threads = [threading.Thread(target=one, args=(group,)) for group in groups]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual(failures, [])


class ManyUrlsOverSse(ManyUrls):
    CORES = (2,)  # how events are framed depends on no number of cores
    target = "/crawl/sse"


class Order(Streams):
    def test_completion_does_not_wait_for_the_slow_one(self):
        slow = self.origin.page(0, latency="1s")
        urls = [slow] + [self.origin.page(n) for n in range(1, 8)]
        events = self.crawl(urls, order="completion", concurrency=8, cache_mode="bypass")
        indices = [event["index"] for event in events if event["type"] == "result"]
        self.assertEqual(indices[-1], 0)

    def test_input_waits_for_the_slow_one(self):
        slow = self.origin.page(0, latency="500ms")
        urls = [slow] + [self.origin.page(n) for n in range(1, 8)]
        events = self.crawl(urls, order="input", concurrency=8, cache_mode="bypass")
        indices = [event["index"] for event in events if event["type"] == "result"]
        self.assertEqual(indices, list(range(8)))

    def test_progress_is_told_while_it_waits(self):
        events = self.crawl([self.origin.page(0, latency="700ms")], progress_ms=100)
        progress = [event for event in events if event["type"] == "progress"]
        self.assertTrue(progress)
        self.assertEqual(progress[0]["items_total"], 1)
        self.assertEqual(progress[0]["operation_type"], "batch_crawl")


class Limits(Streams):
    def test_a_deadline_leaves_partial_results_and_true_counts(self):
        stalled = [self.origin.at("/stall", at="body", for_="1h", n=n) for n in range(4)]
        urls = stalled + [self.origin.page(n) for n in range(4)]
        events = self.crawl(urls, deadline_ms=1500, timeout_ms=60000, concurrency=8)
        found = results(events)
        for index in range(4, 8):
            self.assertIsNone(found[index]["error"], found[index])
        for index in range(4):
            if index in found:
                self.assertIn(found[index]["error"]["code"], ("deadline_exceeded", "cancelled"))
        self.assertTrue(server.wait_until(self.quiet), "the origin still serves it")

    def test_a_url_has_its_own_timeout(self):
        urls = [self.origin.at("/stall", at="head", for_="1h"), self.origin.page(1)]
        found = results(self.crawl(urls, timeout_ms=400))
        self.assertIn(found[0]["error"]["code"], ("url_timeout", "read_timeout"))
        self.assertIsNone(found[1]["error"])

    def test_concurrency_is_what_the_origin_sees(self):
        for concurrency in (1, 3, 10):
            with self.subTest(concurrency):
                self.assertTrue(server.wait_until(self.quiet))
                origin_json(self.origin, "/_reset")
                urls = [self.origin.page(n, latency="30ms") for n in range(40)]
                self.crawl(urls, concurrency=concurrency, cache_mode="bypass")
                seen = origin_json(self.origin, "/_stats?path=/page")[1]
                self.assertLessEqual(seen["in_flight_max"], concurrency)
                if concurrency > 1:
                    self.assertGreater(seen["in_flight_max"], 1)
                hits = {path: counts["hits"] for path, counts in seen["paths"].items()}
                self.assertEqual(set(hits.values()), {1}, "a page was fetched twice")

    def test_a_body_limit(self):
        urls = [self.origin.page(1, size="200k"), self.origin.page(2, size=5000)]
        found = results(self.crawl(urls, max_body_bytes=100_000))
        self.assertEqual(found[0]["error"]["code"], "body_too_large")
        self.assertEqual(found[0]["gate_decision"], "rejected")
        self.assertIsNone(found[1]["error"])

    def test_redirects_can_be_forbidden(self):
        found = results(self.crawl([self.origin.redirect(1)], redirects=0))
        self.assertEqual(found[0]["error"]["code"], "too_many_redirects")

    def test_extra_fields_and_the_agent_reach_the_origin(self):
        origin_json(self.origin, "/_reset")
        options = {"user_agent": "probe/1", "headers": {"X-Probe": "yes"}, "cache_mode": "bypass"}
        self.crawl([self.origin.page(77)], **options)
        _, heads = origin_json(self.origin, "/_requests?path=/page/77")
        fields = dict(tuple(pair) for pair in heads[-1]["fields"])
        self.assertEqual((fields["user-agent"], fields["x-probe"]), ("probe/1", "yes"))

    def quiet(self):
        return origin_json(self.origin, "/_stats?paths=0")[1]["in_flight"] == 0


class Gone(Streams):
    """A client that leaves takes its work with it."""

    def leave(self, how, at):
        server.wait_until(lambda: origin_json(self.origin, "/_wait?in_flight=0")[0] == 200)
        origin_json(self.origin, "/_reset")
        urls = [self.origin.at("/stall", at=at, for_="1h", n=n) for n in range(8)]
        options = {"concurrency": 8, "timeout_ms": 60000, "deadline_ms": 60000, "resume_window_s": 0}
        connection = Connection(self.server.address)
        connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
        head = connection.read_head()
        self.assertEqual(head.status, 200)
        status, seen = origin_json(self.origin, "/_wait?requests=8&timeout=10s")
        self.assertEqual(status, 200, seen)
        how(connection)
        status, seen = origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
        self.assertEqual(status, 200, f"still fetching after the client left: {seen}")
        self.assertGreaterEqual(seen["aborted"], 8)

    def test_by_closing(self):
        for at in ("head", "midhead", "body"):
            with self.subTest(at):
                self.leave(Connection.close, at)

    def test_by_reset(self):
        self.leave(Connection.reset, "body")

    def test_while_extracting(self):
        urls = [self.origin.hostile("amps") for _ in range(8)]
        options = {"concurrency": 8, "resume_window_s": 0}
        connection = Connection(self.server.address)
        connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
        connection.read_head()
        connection.reset()
        self.assertEqual(ask(self.server, "GET", "/livez").status, 200)


class Refusals(Streams):
    """Before the first byte of a stream: a real status and an error object (API section 5)."""

    def refused(self, body, status, code, field=None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        for target in ("/crawl", "/crawl/stream"):
            fields = ["Content-Type: application/json", "X-Request-ID: req-7"]
            response = ask(self.server, "POST", target, body, fields)
            self.assertEqual(response.status, status, response)
            error = response.json()["error"]
            self.assertEqual((error["code"], error["status"]), (code, status))
            self.assertEqual(error["request_id"], "req-7")
            self.assertIsInstance(error["retryable"], bool)
            self.assertTrue(error["type"] and error["message"])
            if field:
                self.assertIn(field, json.dumps(error["details"]))

    def test_bodies(self):
        for body in (b"", b"{", b"[]", b'"x"', b"{\"urls\":[]}x", b"\xff\xfe", b"[" * 100_000):
            with self.subTest(body[:20]):
                response = ask(self.server, "POST", "/crawl", body, ["Content-Type: application/json"])
                self.assertEqual(response.status, 400)
                self.assertIn(response.json()["error"]["code"], ("invalid_json", "validation_error"))

    def test_urls(self):
        self.refused({"urls": []}, 400, "validation_error", "urls")
        self.refused({}, 400, "validation_error", "urls")
        too_many = [self.origin.page(n) for n in range(server.URLS_MAX + 1)]
        self.refused({"urls": too_many}, 400, "too_many_urls", "urls")
        for url in ("", "example", "ftp://a/", "http://", "http://a b/", "javascript:1", "http://a:99999/", "file:///etc"):
            with self.subTest(url):
                self.refused({"urls": [self.origin.page(1), url]}, 400, "invalid_url", "urls")

    def test_options(self):
        urls = [self.origin.page(1)]
        for name, value in (
            ("concurrency", 0), ("concurrency", 100_000), ("concurrency", "16"), ("timeout_ms", 0),
            ("timeout_ms", -1), ("deadline_ms", 1e300), ("order", "random"), ("redirects", 1000),
            ("max_body_bytes", 1 << 40), ("progress_ms", -5), ("slow_client", "drop"),
            ("headers", {"Host": "a"}), ("headers", {"A\r\nB": "c"}), ("headers", {"A": "b\r\nC: d"}),
            ("user_agent", "a\r\nB: c"), ("robots", "maybe"), ("cache_mode", "odd"),
        ):
            with self.subTest(name=name, value=value):
                self.refused({"urls": urls, "options": {name: value}}, 400, "validation_error", name)

    def test_unknown_fields_are_named(self):
        urls = [self.origin.page(1)]
        self.refused({"urls": urls, "option": {}}, 400, "unknown_field", "option")
        self.refused({"urls": urls, "options": {"concurency": 1}}, 400, "unknown_field", "concurency")


class Whole(Streams):
    def test_crawl_answers_in_one_object(self):
        mixed = kinds(self.origin)
        body = {"urls": [url for url, _ in mixed], "options": {"timeout_ms": 3000}}
        response = ask(self.server, "POST", "/crawl", body)
        self.assertEqual(response.status, 200)
        answer = response.json()
        self.assertEqual(set(answer), {"metadata", "results", "summary"})
        self.assertEqual(answer["metadata"]["total_urls"], len(mixed))
        self.assertEqual(len(answer["results"]), len(mixed))
        summary = answer["summary"]
        total = summary["successful"] + summary["failed"] + summary["cancelled"]
        self.assertEqual(total, len(mixed))

    def test_the_versioned_path_is_the_same(self):
        response = ask(self.server, "POST", "/v1/crawl", {"urls": [self.origin.page(1)]})
        self.assertEqual(response.status, 200)
