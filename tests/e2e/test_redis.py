"""What nodes share through Redis, every way to reach one, and every way in which one fails: a request
loses its cache and nothing else."""

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import invariants
import server
from client import ask, origin_json, results, stream
from redises import (FIRST, Fake, Redis, becomes, between, cluster_of_six, free_port, garbage, liar, node, redis_of,
                     sentinel_pair, slow)
from server import FOREBAY, FULL, LOADTEST, QUICK, Server, wait_until

class Shared(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on two cores only: it is the same work again")
        self.origin = server.shared()[1]

    def crawl(self, target, urls, **options):
        _, events = stream(target, urls, **FIRST, **options)
        self.assertEqual(invariants.broken(events, len(urls)), [])
        return results(events)

    def uses(self, target, urls, **options):
        found = self.crawl(target, urls, **options)
        self.assertEqual([found[n]["error"] for n in range(len(urls))], [None] * len(urls))
        return [found[n]["cache"] for n in range(len(urls))]

    def up(self, *targets):
        for target in targets:
            self.assertTrue(becomes(target, "up"), f"{redis_of(target)}\n{target.output()}")

    def stored(self, target, count):
        self.assertTrue(wait_until(lambda: redis_of(target)["stored"] >= count), redis_of(target))

    def share(self, url, *more, count=4, first=2000):
        """Pages that one node fetches are there for another."""
        with node(url, *more) as one, node(url, *more) as other:
            self.up(one, other)
            urls = [self.origin.page(first + n, size=3000) for n in range(count)]
            self.assertEqual(self.uses(one, urls), ["miss"] * count)
            self.stored(one, count)
            self.assertEqual(self.uses(other, urls), ["hit"] * count)


class Ways(Shared):
    """Every kind of Redis."""

    def test_one_node_and_its_pages(self):
        with Redis() as redis, node(redis.url) as one, node(redis.url) as other:
            self.up(one, other)
            small, large = self.origin.page(2001, size=1000), self.origin.page(2002, size="900k")
            first = self.crawl(one, [small, large])
            self.stored(one, 2)
            again = self.crawl(other, [small, large])
            for n in (0, 1):
                self.assertEqual((first[n]["cache"], again[n]["cache"]), ("miss", "hit"))
                for same in ("document", "status", "final_url", "bytes", "cache_key", "quality_score"):
                    self.assertEqual(again[n][same], first[n][same], same)
            before = redis_of(other)["answer"]
            self.assertEqual(self.uses(other, [small] * 50), ["hit"] * 50)
            # From memory; only the look once a second may come between.
            self.assertLess(redis_of(other)["answer"] - before, 10)
            keys = redis.ask("KEYS", "*")
            self.assertTrue(all(key.startswith(b"forebay:") for key in keys), keys)
            pages = [key for key in keys if redis.ask("TYPE", key) == "string" and key.endswith(b"}")]
            self.assertEqual(len(pages), 2, keys)
            page = max(pages, key=lambda key: redis.ask("STRLEN", key))
            self.assertLess(redis.ask("STRLEN", page), 900_000, "packed")
            self.assertTrue(0 < redis.ask("PTTL", page) <= 86_400_000)

    def test_cache_modes_and_ages_hold_on_the_second_level(self):
        with Redis() as redis, node(redis.url) as one, node(redis.url) as other:
            self.up(one, other)
            url = self.origin.page(2011, etag=1)
            self.uses(one, [url])
            self.stored(one, 1)
            asked = [({"cache_mode": "bypass"}, "bypass"), ({"cache_mode": "write_only"}, "bypass")]
            for options, cache in asked:
                self.assertEqual(self.uses(other, [url], **options), [cache])
            url = self.origin.page(2012, etag=1)
            self.assertEqual(self.uses(one, [url], cache_mode="read_only"), ["miss"])
            self.assertEqual(self.uses(other, [url]), ["miss"], "it was not stored")
            self.stored(other, 2)
            self.assertEqual(self.uses(one, [url], cache_mode="read_only"), ["hit"])
            self.assertEqual(self.uses(one, [url], max_age_s=0), ["revalidated"])
            url = self.origin.page(2013)
            self.assertEqual(self.uses(one, [url], headers={"Cookie": "a=1"}), ["miss"])
            self.assertEqual(self.uses(other, [url], headers={"Cookie": "a=2"}), ["miss"])

    def test_what_another_extractor_made_is_no_page_of_this_one(self):
        """A node with another module, as while a new version is rolled out: the same code here, under another hash."""
        with tempfile.TemporaryDirectory() as folder, Redis() as redis:
            path = os.path.join(folder, "other.wasm")
            with open(os.path.join(server.ROOT, "src", "extract", "guest", "extractor.wasm"), "rb") as built_in:
                module = built_in.read()
            with open(path, "wb") as other:
                # A custom section at its end: 5 bytes, with the name "note".
                other.write(module + b"\x00\x05\x04note")
            others = [("--extract-module", path), ("--extract-html-bytes-max", "1048576")]
            url, keys = self.origin.page(2015, size=3000), set()
            for flags in [(), *others]:
                with node(redis.url, *flags) as one, node(redis.url, *flags) as same:
                    self.up(one, same)
                    page = self.crawl(one, [url])[0]
                    self.assertEqual((page["cache"], page["error"]), ("miss", None), flags)
                    self.stored(one, 1)
                    self.assertEqual(self.uses(same, [url]), ["hit"], flags)
                    keys.add(page["cache_key"])
            self.assertEqual(len(keys), 3)

    def test_what_another_node_has_fetched_is_found_here(self):
        """A page out of Redis is in the local index of the node that took it, and of one that was restarted."""
        def found(target, query, url):
            body = {"query": query, "include_content": False}
            answer = ask(target, "POST", "/deepsearch", body).json()
            return url in [part["result"]["url"] for part in answer["results"]]

        with Redis() as redis, node(redis.url) as one:
            url = self.origin.page(2018, size=3000)
            self.up(one)
            title = self.crawl(one, [url])[0]["document"]["title"]
            self.stored(one, 1)
            self.assertTrue(wait_until(lambda: found(one, title, url)))
            with node(redis.url) as other:
                self.up(other)
                self.assertFalse(found(other, title, url))
                self.assertEqual(self.uses(other, [url], cache_mode="read_only"), ["hit"])
                self.assertEqual(self.uses(other, [url]), ["hit"])
                self.assertTrue(wait_until(lambda: found(other, title, url)))

    def test_an_acl_user_whose_password_nobody_sees(self):
        lines = ["user default off", "user fore on >s3cr%t ~pages:* +@all -@dangerous"]
        with Redis(*lines) as redis:
            url = f"redis://fore:s3cr%25t@{redis.address}/0"
            self.share(url, "--redis-prefix", "pages", first=2020)
            shown = subprocess.run([FOREBAY, "check", "--redis-url", url], capture_output=True, check=False, timeout=60)
            self.assertEqual(shown.returncode, 0, shown)
            self.assertIn(b"redis.url = ***\n", shown.stdout)
            self.assertNotIn(b"s3cr", shown.stdout + shown.stderr)
            with node(f"redis://fore:wr0ng@{redis.address}") as wrong:
                self.assertTrue(wait_until(lambda: "authentication failed" in wrong.output()), wrong.output())
                self.assertEqual(self.uses(wrong, [self.origin.page(2020, size=3000)]), ["miss"])
                self.assertNotIn("wr0ng", wrong.output())

    def test_a_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "redis.sock")
            with Redis(f"unixsocket {path}"):
                self.share(f"unix://{path}", first=2030)

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            at = lambda name: os.path.join(folder, name)  # noqa: E731
            make = [
                ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", at("ca.key"), "-out", at("ca.pem"),
                 "-days", "2", "-subj", "/CN=ca"],
                ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", at("key"), "-out", at("csr"), "-subj", "/CN=redis"],
                ["x509", "-req", "-in", at("csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial",
                 "-out", at("pem"), "-days", "2", "-extfile", at("names")],
            ]
            with open(at("names"), "w", encoding="ascii") as names:
                names.write("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
            for arguments in make:
                subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
            port = free_port()
            lines = ["port 0", f"tls-port {port}", f"tls-cert-file {at('pem')}", f"tls-key-file {at('key')}",
                     f"tls-ca-cert-file {at('ca.pem')}", "tls-auth-clients no"]
            with Redis(*lines, port=port):
                self.share(f"rediss://127.0.0.1:{port}", "--redis-ca", at("ca.pem"), first=2040)
                with node(f"rediss://127.0.0.1:{port}") as stranger:
                    self.assertTrue(wait_until(lambda: "no connection to Redis" in stranger.output()))
                    self.assertEqual(self.uses(stranger, [self.origin.page(2040, size=3000)]), ["miss"])

    def test_sentinels_name_the_primary_and_its_heir(self):
        with sentinel_pair() as (primary, replica, url):
            with node(url) as one, node(url) as other:
                self.up(one, other)
                before = [self.origin.page(2050 + n) for n in range(4)]
                self.uses(one, before)
                self.stored(one, 4)
                self.assertTrue(wait_until(lambda: replica.ask("DBSIZE") == primary.ask("DBSIZE")))
                primary.kill()
                during = [self.origin.page(2060 + n) for n in range(4)]
                self.assertEqual(self.uses(one, during), ["miss"] * 4)
                self.assertTrue(becomes(other, "down"), redis_of(other))
                self.assertTrue(wait_until(lambda: replica.ask("ROLE")[0] == b"master", 30))
                self.assertTrue(becomes(one, "up", 30) and becomes(other, "up", 30), redis_of(one))
                self.assertEqual(self.uses(other, before), ["hit"] * 4)
                after = [self.origin.page(2070 + n) for n in range(4)]
                stored = redis_of(one)["stored"]
                self.uses(one, after)
                self.stored(one, stored + 4)
                self.assertEqual(self.uses(other, after), ["hit"] * 4)

    def test_a_cluster_of_six_loses_a_primary(self):
        with cluster_of_six() as (nodes, url):
            with node(url) as one, node(url) as other:
                self.up(one, other)
                urls = [self.origin.page(2100 + n) for n in range(30)]
                self.assertEqual(self.uses(one, urls), ["miss"] * 30)
                self.stored(one, 30)
                self.assertEqual(self.uses(other, urls), ["hit"] * 30)
                held = [redis.ask("DBSIZE") for redis in nodes]
                self.assertGreater(sum(count > 0 for count in held), 2, "pages are in every part")
                victim = next(n for n in nodes if n.ask("ROLE")[0] == b"master")
                victim.kill()
                alive = [n for n in nodes if n is not victim]
                self.uses(one, [self.origin.page(2140 + n) for n in range(10)])
                masters = lambda: sum(n.ask("ROLE")[0] == b"master" for n in alive)  # noqa: E731
                self.assertTrue(wait_until(lambda: masters() == 3, 30))
                self.assertTrue(becomes(one, "up", 30), redis_of(one))

                def shared_again():
                    more = [self.origin.page(2200 + n) for n in range(12)]
                    self.uses(one, more, cache_mode="write_only")
                    return self.uses(other, more, max_age_s=3600).count("hit") == 12

                self.assertTrue(wait_until(shared_again, 30), redis_of(other))


class Troubles(Shared):
    """Every way to fail."""

    def load(self, target, first, streams=200):
        """So many streams of four pages each, by a client that counts failures; returns its process."""
        page = self.origin.page("{{n}}", size=1500, latency="5ms")
        command = [LOADTEST, "run", "--url", target.url, "--transport", "ndjson", "--json", "-", "--crawl",
                   page.replace("/page/", f"/page/{first}"), "--urls", "4", "--closed", "200", "-n", str(streams),
                   "--option", "timeout_ms=60000", "--timeout", "120s"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def unharmed(self, child, title):
        out, err = child.communicate(timeout=180)
        self.assertEqual(child.returncode, 0, out[-2000:] + err[-2000:])
        group = json.loads(out)["groups"][0]
        self.assertEqual(group["counts"]["violations"], 0)
        ttfb = {name: group["metrics"]["ttfb"][name] for name in ("p50_us", "p99_us", "p99_9_us", "max_us")}
        print(f"{title}: time to the first byte", json.dumps(ttfb), file=sys.__stdout__, flush=True)
        return group["counts"]

    def test_killed_stopped_and_restarted_under_200_streams(self):
        streams = 1500 if FULL else 600
        # Quick to give up, as by default: it is the requests that must not notice.
        with Redis() as redis, Server("--redis-url", redis.url) as target:
            self.up(target)
            self.unharmed(self.load(target, 30, streams), "Redis well")
            for n, (hurt, heal) in enumerate([(redis.kill, redis.start), (redis.pause, redis.go_on)]):
                child = self.load(target, 31 + n, streams)
                self.assertTrue(wait_until(lambda: ask(target, "GET", "/healthz").json()["streams_running"] > 50, 30))
                hurt()
                self.assertTrue(becomes(target, "down"), redis_of(target))
                heal()
                counts = self.unharmed(child, f"Redis hurt by {hurt.__name__}")
                self.assertEqual(counts["pages_ok"], streams * 4, counts)
                self.up(target)
            self.assertGreater(redis_of(target)["breaker_open"], 1)

    def through_a_death(self, title, url, first, kill):
        """A primary is killed in the midst of 200 streams, and another takes its place."""
        streams = 600 if QUICK else 1500
        with Server("--redis-url", url) as target:
            self.assertTrue(becomes(target, "up", 30), redis_of(target))
            child = self.load(target, first, streams)
            self.assertTrue(wait_until(lambda: ask(target, "GET", "/healthz").json()["streams_running"] > 50, 30))
            kill()
            counts = self.unharmed(child, f"a primary of {title} killed")
            self.assertEqual(counts["pages_ok"], streams * 4, counts)
            self.assertTrue(becomes(target, "up", 60), redis_of(target))

    def test_a_primary_of_a_cluster_is_killed_under_200_streams(self):
        with cluster_of_six() as (nodes, url):
            kill = lambda: next(redis for redis in nodes if redis.ask("ROLE")[0] == b"master").kill()  # noqa: E731
            self.through_a_death("a cluster", url, 36, kill)

    def test_a_primary_under_sentinels_is_killed_under_200_streams(self):
        with sentinel_pair() as (primary, replica, url):
            self.through_a_death("sentinels", url, 37, primary.kill)
            self.assertEqual(replica.ask("ROLE")[0], b"master")

    def test_one_that_turns_slow_is_left_alone_until_it_is_quick_again(self):
        late, urls = threading.Event(), [self.origin.page(2290 + n) for n in range(8)]

        def judge(_):
            if late.is_set():
                time.sleep(2)
            return ""

        with Redis() as redis, Fake(between(redis, judge)) as line, Server("--redis-url", line.url) as target:
            self.up(target)
            self.assertEqual(self.uses(target, urls), ["miss"] * 8)
            self.stored(target, 8)
            late.set()
            slowest = 0
            for n in range(40):
                began = time.monotonic()
                self.assertEqual(self.uses(target, [self.origin.page(2240 + n)]), ["miss"])
                slowest = max(slowest, time.monotonic() - began)
            # Each waited for 50 ms at most, until nobody did any more; never for an answer.
            self.assertLess(slowest, 1.9)
            self.assertTrue(becomes(target, "down"), redis_of(target))
            late.clear()
            self.up(target)
            self.assertEqual(self.uses(target, [self.origin.page(2281)]), ["miss"])
            self.stored(target, 9)

    def test_what_redis_does_is_in_the_metrics(self):
        with Redis() as redis, node(redis.url) as one, node(redis.url) as other:
            self.up(one, other)
            urls = [self.origin.page(2285 + n) for n in range(3)]
            self.uses(one, urls)
            self.stored(one, 3)
            self.uses(other, urls)
            first, second = metrics(one), metrics(other)
            self.assertEqual(first['state{state="up"}'], 1)
            self.assertEqual((first['pages_total{outcome="stored"}'], second['pages_total{outcome="hit"}']), (3, 3))
            self.assertEqual((first['pages_total{outcome="miss"}'], second['pages_total{outcome="stored"}']), (3, 0))
            connects = first['events_total{event="connect"}']
            self.assertGreaterEqual(connects, 1)
            self.assertGreater(second['events_total{event="answer"}'], 3)
            self.assertEqual(first["queue"], 0)
            redis.kill()
            self.assertTrue(becomes(one, "down"), redis_of(one))
            hurt = metrics(one)
            self.assertEqual(hurt['state{state="down"}'], 1)
            opened = 'events_total{event="breaker_open"}'
            self.assertGreater(hurt[opened], first[opened])
            redis.start()
            self.up(one)
            self.assertGreater(metrics(one)['events_total{event="connect"}'], connects)

    def test_a_full_one_still_answers(self):
        with Redis() as redis, node(redis.url) as one, node(redis.url) as other:
            self.up(one, other)
            url = self.origin.page(2301)
            self.uses(one, [url])
            self.stored(one, 1)
            redis.ask("CONFIG", "SET", "maxmemory", "1")
            self.assertEqual(self.uses(one, [self.origin.page(2310 + n) for n in range(12)]), ["miss"] * 12)
            self.assertTrue(becomes(one, "read_only"), redis_of(one))
            self.assertTrue(wait_until(lambda: self.uses(other, [self.origin.page(2320 + n) for n in range(9)])
                                       and redis_of(other)["state"] == "read_only"))
            self.assertEqual(self.uses(other, [url]), ["hit"])
            redis.ask("CONFIG", "SET", "maxmemory", "0")
            self.up(one, other)

    def test_a_replica_is_read(self):
        with Redis() as primary, Redis(f"replicaof 127.0.0.1 {primary.port}") as replica:
            with node(primary.url) as one, node(replica.url) as other:
                self.up(one)
                self.assertTrue(becomes(other, "read_only"), redis_of(other))
                url = self.origin.page(2401)
                self.uses(one, [url])
                self.stored(one, 1)
                self.assertTrue(wait_until(lambda: replica.ask("DBSIZE") == primary.ask("DBSIZE")))
                self.assertEqual(self.uses(other, [url]), ["hit"])
                self.assertEqual(self.uses(other, [self.origin.page(2402)]), ["miss"])

    def test_one_that_is_none_is_left_alone(self):
        urls = [self.origin.page(2500 + n) for n in range(8)]
        for speak in (garbage, slow):
            with self.subTest(speak.__name__), Fake(speak) as fake, Server("--redis-url", fake.url) as target:
                for turn in range(3):
                    self.assertEqual(self.uses(target, urls), ["hit" if turn else "miss"] * 8)
                time.sleep(0.5)
                self.assertIn(redis_of(target)["state"], ("connecting", "down"))

    def test_one_that_lies_is_not_believed(self):
        with Redis() as redis, node(redis.url) as honest:
            self.up(honest)
            url, other = self.origin.page(2601), self.origin.page(2602)
            self.uses(honest, [url])
            self.stored(honest, 1)
            key = next(key for key in redis.ask("KEYS", "*") if key.endswith(b"}"))
            page = redis.ask("GET", key)
        for payload in (b"", b"FBP1", page[:-1], page[:60] + b"X" + page[61:], b"\x00" * 100_000):
            with Fake(liar(payload)) as fake, node(fake.url) as target:
                self.up(target)
                self.assertEqual(self.uses(target, [url]), ["miss"], payload[:20])
                self.assertGreater(redis_of(target)["garbage"], 0, payload[:20])
        with Fake(liar(page)) as fake, node(fake.url) as target:
            self.up(target)
            found = self.uses(target, [url, other])
            self.assertEqual(found, ["hit", "miss"], f"one page is not another: {redis_of(target)}")

    def test_a_server_that_starts_before_its_redis(self):
        port = free_port()
        with node(f"redis://127.0.0.1:{port}") as target:
            self.assertEqual(self.uses(target, [self.origin.page(2701)]), ["miss"])
            self.assertEqual(redis_of(target)["state"], "connecting")
            with Redis(port=port):
                self.up(target)


class SingleFlight(Shared):
    def hits(self, url):
        path = url.removeprefix(self.origin.url)
        seen = origin_json(self.origin, f"/_stats?path={path.split('?')[0]}")[1]["paths"]
        return seen.get(path, {"hits": 0})["hits"]

    def test_nodes_fetch_a_page_once(self):
        with Redis() as redis, node(redis.url) as one, node(redis.url) as two, node(redis.url) as three:
            self.up(one, two, three)
            url = self.origin.page(2801, latency="700ms")
            with concurrent.futures.ThreadPoolExecutor(9) as pool:
                asked = [pool.submit(self.crawl, target, [url] * 20) for target in (one, two, three) * 3]
                found = [result for one in asked for result in one.result().values()]
            self.assertEqual([result["error"] for result in found], [None] * 180)
            self.assertEqual(self.hits(url), 1)

    def test_a_node_that_dies_is_not_waited_for_for_long(self):
        with Redis() as redis, node(redis.url, "--redis-flight-ms", "1000") as other:
            dying = node(redis.url, "--redis-flight-ms", "1000")
            self.up(dying, other)
            url = self.origin.page(2811, latency="1500ms")
            threading.Thread(target=self.crawl_to_nowhere, args=(dying, url), daemon=True).start()
            self.assertTrue(wait_until(lambda: self.hits(url) == 1))
            dying.kill()
            self.assertEqual(self.uses(other, [url]), ["miss"])
            self.assertEqual(self.hits(url), 2)

    def crawl_to_nowhere(self, target, url):
        try:
            stream(target, [url], **FIRST)
        except (AssertionError, OSError, ValueError):
            pass  # it is killed meanwhile

    # A lease that lives so long is one that was given back, where a page comes sooner.
    LONG = ("--redis-flight-ms", "30000")

    def leases(self, redis):
        return [key for key in redis.ask("KEYS", "*") if key.endswith(b":lease")]

    def soon(self, target, urls, **options):
        """As `uses`, long before any lease ends by itself."""
        began = time.monotonic()
        used = self.uses(target, urls, **options)
        self.assertLess(time.monotonic() - began, 20)
        return used

    def test_a_failure_that_says_nothing_to_others_gives_the_lease_back(self):
        with Redis() as redis, node(redis.url, *self.LONG) as one, node(redis.url, *self.LONG) as other:
            self.up(one, other)
            url = self.origin.page(2821, latency="3s")
            found = self.crawl(one, [url], timeout_ms=1500)
            self.assertEqual(found[0]["error"]["code"], "url_timeout")
            self.assertEqual(self.soon(other, [url]), ["miss"])
            self.assertEqual(self.hits(url), 2)
            self.stored(other, 1)  # behind the answer's back, and the lease ends with it
            self.assertEqual(self.leases(redis), [])

    def test_a_page_that_can_not_be_stored_leaves_no_lease(self):
        flags = ("--redis-value-bytes-max", "1024", *self.LONG)
        with Redis() as redis, node(redis.url, *flags) as one, node(redis.url, *flags) as other:
            self.up(one, other)
            url = self.origin.page(2831, size="20k")
            self.assertEqual(self.uses(one, [url]), ["miss"])
            self.assertTrue(wait_until(lambda: not self.leases(redis)), "it is not left")
            self.assertEqual(self.soon(other, [url]), ["miss"])
            self.assertEqual(self.hits(url), 2)

    def test_a_lease_that_comes_too_late_is_given_back(self):
        asked, waited = [], threading.Event()

        def judge(command):
            if command[0] == b"EVAL" and command[4].endswith(b":lease") and not asked:
                asked.append(command[4])
                time.sleep(1)
                waited.set()
            return ""

        with Redis() as redis, Fake(between(redis, judge)) as line:
            # As by default, a page waits for 50 ms; an answer may take longer. All that comes behind it is
            # late as well, so that Redis may be left alone for a moment just then.
            with Server("--redis-url", line.url, "--redis-timeout-ms", "3000", *self.LONG) as one:
                self.up(one)
                url = self.origin.page(2841, latency="400ms")
                found = self.crawl(one, [url], timeout_ms=200)
                self.assertEqual(found[0]["error"]["code"], "url_timeout")
                self.assertTrue(waited.wait(20))
                given_back = lambda: b"cmdstat_del:" in redis.ask("INFO", "commandstats")  # noqa: E731
                self.assertTrue(wait_until(given_back, 20), self.leases(redis))
                self.assertFalse(wait_until(lambda: self.leases(redis), 1), "and none comes later")

    def test_a_page_that_will_not_do_is_fetched_once_for_all_nodes(self):
        with Redis() as redis, node(redis.url, *self.LONG) as one, node(redis.url, *self.LONG) as two, \
                node(redis.url, *self.LONG) as three:
            targets = (one, two, three)
            self.up(*targets)
            url = self.origin.page(2851, latency="900ms")
            self.assertEqual(self.uses(one, [url]), ["miss"])
            self.stored(one, 1)
            time.sleep(4.2)

            def all_at_once(**options):
                before = self.hits(url)
                with concurrent.futures.ThreadPoolExecutor(3) as pool:
                    asked = [pool.submit(self.soon, target, [url], **options) for target in targets]
                    used = sorted(answer for one in asked for answer in one.result())
                return used, self.hits(url) - before

            # Too old for these requests, though it is there: who waits gets the newer one.
            self.assertEqual(all_at_once(max_age_s=4), (["hit", "hit", "stale"], 1))
            self.assertEqual(self.leases(redis), [])

    def test_what_is_no_page_is_replaced_once_for_all_nodes(self):
        with Redis() as redis, node(redis.url) as honest:
            self.up(honest)
            url = self.origin.page(2861, latency="900ms")
            self.uses(honest, [url])
            self.stored(honest, 1)
            key = next(key for key in redis.ask("KEYS", "*") if key.endswith(b"}") and b":" not in key[8:])
            self.assertEqual(self.hits(url), 1)
            redis.ask("SET", key, "no page of ours, though long enough to be told from one by how it begins")
            with node(redis.url, *self.LONG) as one, node(redis.url, *self.LONG) as other:
                self.up(one, other)
                with concurrent.futures.ThreadPoolExecutor(2) as pool:
                    asked = [pool.submit(self.soon, target, [url]) for target in (one, other)]
                    used = sorted(answer for one in asked for answer in one.result())
                self.assertEqual((used, self.hits(url)), (["hit", "miss"], 2))


def metrics(target):
    """What a server counts of its Redis, by the names behind `forebay_redis_`."""
    lines = ask(target, "GET", "/metrics").body.decode().splitlines()
    named = [line.removeprefix("forebay_redis_").split() for line in lines if line.startswith("forebay_redis_")]
    return {name: int(value) for name, value in named}


if __name__ == "__main__":
    unittest.main()
