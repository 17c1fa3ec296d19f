"""Origins as the server meets them: robots.txt, pacing, faults by the thousand, and a name server that
rebinds, in a network of its own."""

import json
import os
import subprocess
import sys
import time
import unittest

import invariants
import server
from client import ask, origin_json, results, stream

HERE = os.path.dirname(os.path.abspath(__file__))


class WithOrigin(unittest.TestCase):
    """Each test has an origin of its own: what is known of a host is kept."""

    def setUp(self):
        self.server, _ = server.shared()
        self.origin = server.Origin()
        self.addCleanup(self.origin.stop)

    def robots(self, mode):
        self.assertEqual(ask(self.origin, "GET", f"/_set?robots={mode}").status, 200)

    def crawl(self, urls, **options):
        _, events = stream(self.server, urls, **options)
        self.assertEqual(invariants.broken(events, len(urls)), [])
        return events

    def codes(self, urls, **options):
        """Each URL's error code, or None."""
        by_index = results(self.crawl(urls, **options))
        return [(by_index[n]["error"] or {}).get("code") for n in range(len(urls))]


class Robots(WithOrigin):
    def test_it_is_respected_unless_told_otherwise(self):
        self.robots("private")
        urls = [self.origin.page(1), self.origin.page(13), self.origin.at("/redirect", to="/page/13")]
        events = self.crawl(urls)
        self.assertEqual(events[0]["warnings"], [])
        allowed, refused, hop = (results(events)[n] for n in range(3))
        self.assertEqual((allowed["error"], allowed["gate_decision"]), (None, "approved"))
        for result in (refused, hop):
            self.assertEqual(result["gate_decision"], "rejected")
            self.assertEqual(result["error"]["code"], "robots_disallowed")
            self.assertEqual((result["error"]["stage"], result["error"]["retryable"]), ("pace", False))
        self.assertEqual(self.codes(urls, robots="ignore"), [None] * 3)
        _, seen = origin_json(self.origin, "/_requests?path=/robots.txt")
        self.assertEqual(len(seen), 1, "one for all streams and cores")

    def test_what_cannot_be_had_is_no_permission(self):
        for mode, code in (("404", None), ("500", "robots_disallowed"), ("reset", "connect_failed")):
            with self.subTest(mode):
                self.origin.stop()
                self.origin = server.Origin()
                self.addCleanup(self.origin.stop)
                self.robots(mode)
                urls = [self.origin.page(n) for n in range(3)]
                self.assertEqual(self.codes(urls), [code] * 3)


class Pacing(WithOrigin):
    def test_crawl_delay_is_kept_and_shown(self):
        self.robots("crawl-delay:0.3")
        found = results(self.crawl([self.origin.page(n) for n in range(4)]))
        waits = sorted(result["timings_us"]["pace"] for result in found.values())
        self.assertEqual({result["error"] for result in found.values()}, {None})
        self.assertGreaterEqual(waits[3], 850_000)

    def test_what_would_come_too_late_is_told_at_once(self):
        self.robots("crawl-delay:600")
        started = time.monotonic()
        codes = self.codes([self.origin.page(n) for n in range(20)], timeout_ms=60_000)
        self.assertEqual(sorted(map(str, codes)), ["None"] + ["host_throttled"] * 19)
        self.assertLess(time.monotonic() - started, 55)

    def test_retry_after_holds_the_host_back(self):
        first = results(self.crawl([self.origin.status(503, retry_after=2)]))[0]
        self.assertEqual((first["status"], first["error"]), (503, None))
        self.assertEqual(self.codes([self.origin.page(1)], timeout_ms=300), ["host_throttled"])
        later = results(self.crawl([self.origin.page(2)]))[0]
        self.assertIsNone(later["error"])
        self.assertGreater(later["timings_us"]["pace"], 300_000)


class Faults(WithOrigin):
    maxDiff = None
    """Every fault of the synthetic origin in a stream of 1,000 URLs, at full size in ten: one event each."""

    def streams(self):
        return 10 if server.FULL else 1

    def kinds(self):
        origin = self.origin
        malformed, reset = {"http_malformed"}, {"connect_failed", "http_malformed"}
        good, large, decode = {None}, {"body_too_large"}, {"decode_failed"}
        names = set(origin.names("malformed"))
        tolerated = "bare-lf no-reason obs-fold same-cl-twice trailers space-before-colon cl-te".split()
        tolerated += ["no-location", "trailing-bytes", "binary-as-html", "wrong-coding", "chunk-ext"]
        decoding = "bad-gzip truncated-gzip unknown-coding five-codings wrong-coding".split()
        unclear = {"huge-header", "many-headers", "huge-location", "huge-chunk-size", "huge-cl", "chunk-ext"}
        strict = names - set(tolerated) - set(decoding) - unclear - {"empty"}
        yield from ((origin.page(n, size=2000), good) for n in range(40))
        yield from ((origin.malformed(name), malformed) for name in sorted(strict))
        yield from ((origin.malformed(name), decode) for name in decoding)
        yield from ((origin.malformed(name), malformed | large | reset) for name in sorted(unclear))
        yield from (
            (origin.malformed("empty"), {"connect_failed"}),
            (origin.at("/reset", at="head"), reset),
            (origin.at("/reset", at="midhead"), reset),
            (origin.at("/reset", at="body"), reset),
            (origin.at("/close", at="head"), reset),
            (origin.at("/close", at="body"), malformed),
            (origin.at("/lie", by="+100"), malformed),
            (origin.at("/endless", what="headers"), malformed),
            (origin.at("/endless", what="interim"), malformed),
            (origin.at("/endless", what="trailers"), malformed),
            (origin.at("/endless", what="close"), large),
            (origin.at("/endless", what="body"), large),
            (origin.at("/bomb", encoding="gzip", size="20m"), decode | large),
            (origin.at("/bomb", encoding="br", size="20m"), decode | large),
            (origin.at("/bomb", encoding="zstd", size="20m"), decode | large),
            (origin.at("/loop", length=2), {"too_many_redirects"}),
            (origin.redirect(12), {"too_many_redirects"}),
            (origin.redirect(3), good),
            (origin.at("/redirect", to="http://169.254.169.254/"), {"blocked_egress"}),
            (origin.page(1, type="application/pdf"), {"unsupported_type"}),
            (origin.status(404), good),
            ("http://10.0.0.1/", {"blocked_egress"}),
            ("http://[::ffff:127.0.0.1]/", {"blocked_egress"}),
        )

    def slow(self):
        """What only a deadline ends."""
        yield from (self.origin.at("/stall", at=at, for_="1h") for at in ("head", "midhead", "body"))
        yield self.origin.at("/drip", bytes_per_s=100)
        yield self.origin.at("/page/1", bytes_per_s=500)

    def test_each_ends_in_one_event_with_its_code_and_leaves_nothing(self):
        kinds, slow = list(self.kinds()), [(url, {"url_timeout"}) for url in self.slow()]
        mixed = [kinds[(n * 37) % len(kinds)] for n in range(900)]
        late = [slow[n % len(slow)] for n in range(100)]
        options = {"deadline_ms": 600_000, "concurrency": 64, "max_body_bytes": 300_000}
        self.crawl([url for url, _ in kinds[:10]], **options)
        before = self.server.descriptors()
        wrong = set()
        for cases, timeout_ms in [(mixed, 60_000), (late, 1500)] * self.streams():
            found = results(self.crawl([url for url, _ in cases], timeout_ms=timeout_ms, **options))
            for index, (url, expected) in enumerate(cases):
                error = found[index]["error"] or {}
                if error.get("code") not in expected:
                    wrong.add(f"{url}: {error}, expected {expected}")
        self.assertEqual("\n".join(sorted(wrong)), "")
        after = server.wait_until(lambda: self.server.descriptors() <= before + 16, 40)
        self.assertTrue(after, f"{before} descriptors before, {self.server.descriptors()} after")


class Rebinding(unittest.TestCase):
    """A network with nothing but loopback, on which public and forbidden addresses stand, and a name
    server that changes its mind."""

    @classmethod
    def setUpClass(cls):
        probe = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False)
        if probe.returncode != 0:
            raise unittest.SkipTest("unshare is not permitted here")

    def test_no_forbidden_address_is_ever_reached(self):
        command = ["unshare", "-n", "-m", sys.executable, os.path.join(HERE, "rebinding.py")]
        done = subprocess.run(command, capture_output=True, check=False, timeout=180)
        self.assertEqual(done.returncode, 0, done.stderr.decode()[-2000:])
        found = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(found["reached"], [], "forbidden addresses that were connected to")
        for name, (expected, outcome) in found["outcomes"].items():
            self.assertEqual(outcome, expected, name)
