"""What one client asks for does not make another's wait: the lanes' turns, and what a stream may hold."""

import contextlib
import json
import socket
import threading
import unittest

import invariants
import server
from client import Connection, ask, origin_json, request, results, stream
from server import QUICK, Origin, Server
from test_extract import PAGE

COSTLY_MS = 150  # CPU time of a hostile page: all that a page may use

# Whatever else runs on the machine: what is tested is the order, not the priority.
AWAKE = ["--extract-lane-class", "normal"]


class Crowd(threading.Thread):
    """A stream whose pages each use up the lane's CPU time; its results as they come."""

    def __init__(self, target, urls, **options):
        super().__init__(daemon=True)
        options = {"concurrency": 256, "timeout_ms": 100_000, "deadline_ms": 300_000, "resume_window_s": 0, **options}
        self.results = []
        self.connection = Connection(target.address)
        self.connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
        self.start()

    def run(self):
        try:
            for line in self.connection.read_lines(self.connection.read_head()):
                event = json.loads(line)
                if event["type"] == "result":
                    self.results.append(event["result"])
        except (OSError, ValueError, AssertionError):
            pass  # the test has ended it

    def end(self):
        with contextlib.suppress(OSError):
            self.connection.socket.shutdown(socket.SHUT_RDWR)
        self.join(30)


class Lanes(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on one core anyway: it is the same work again")
        self.origin = server.shared()[1]
        # One core: all pages are that lane's.
        flags = ["--extract-cpu-ms", str(COSTLY_MS), "--fetch-host-concurrency", "512", *AWAKE]
        self.server = Server(*flags, cores=1, cache_bytes_max=0)
        self.addCleanup(self.server.kill)

    def hostile(self, count):
        return [f"{self.origin.hostile('nested')}&n={n}" for n in range(count)]

    def waiting(self):
        """Pages that wait for the lane, as the metrics say."""
        lines = ask(self.server, "GET", "/metrics").body.decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("forebay_lane_queue_depth{"))

    def crowd(self, count, **options):
        """A hostile stream that the lane has begun with."""
        crowd = Crowd(self.server, self.hostile(count), **options)
        self.addCleanup(crowd.end)
        self.assertTrue(server.wait_until(lambda: len(crowd.results) > 2, 60), crowd.results)
        return crowd

    def test_a_page_and_an_extraction_do_not_wait_for_a_hundred_hostile_ones(self):
        crowd = self.crowd(150)
        before = len(crowd.results)
        _, events = stream(self.server, [self.origin.page(1)], timeout_ms=100_000)
        found = results(events)[0]
        self.assertIsNone(found["error"], found)
        self.assertEqual(invariants.broken(events, 1), [])
        extracted = ask(self.server, "POST", "/extract", PAGE.encode(), ["Content-Type: text/html"])
        self.assertEqual(extracted.status, 200, extracted)
        # Each waits for the page that the lane works on and for the next, and goes before all others.
        came = len(crowd.results) - before
        self.assertLess(came, 40, f"{came} hostile pages came first")
        self.assertLess(len(crowd.results), 140, "the crowd still waits")
        self.assertGreater(self.waiting(), 10)

    def test_an_extraction_of_the_crowds_own_client_is_one_of_many(self):
        """The same key, another line: it waits for one page of the stream at most, not for all."""
        crowd = self.crowd(60)
        before = len(crowd.results)
        for _ in range(3):
            extracted = ask(self.server, "POST", "/extract", PAGE.encode(), ["Content-Type: text/html"])
            self.assertEqual(extracted.status, 200, extracted)
        self.assertLess(len(crowd.results) - before, 40)

    def test_a_page_whose_time_is_up_leaves_the_queue(self):
        urls = self.hostile(60)
        _, events = stream(self.server, urls, concurrency=60, timeout_ms=2500, deadline_ms=200_000)
        self.assertEqual(invariants.broken(events, len(urls)), [])
        errors = [result["error"] for result in results(events).values()]
        waited = [error for error in errors if (error["code"], error["stage"]) == ("url_timeout", "extract_wait")]
        self.assertGreater(len(waited), 10, errors)
        for result in results(events).values():
            if result["error"] in waited:
                self.assertGreater(result["timings_us"]["extract_wait"], 0, result)
                self.assertGreaterEqual(result["processing_time_ms"], 2400, result)

    def test_an_ended_stream_leaves_the_queue_at_once(self):
        crowd = self.crowd(100)
        crowd.end()
        self.assertTrue(server.wait_until(lambda: self.waiting() == 0, 20), self.waiting())
        extracted = ask(self.server, "POST", "/extract", PAGE.encode(), ["Content-Type: text/html"])
        self.assertEqual(extracted.status, 200, extracted)


class Bytes(unittest.TestCase):
    def test_of_a_long_page_all_bytes_are_counted(self):
        target, origin = server.shared()
        for encoding in ("identity", "gzip"):
            with self.subTest(encoding):
                url = origin.page(1, size=5_000_000, encoding=encoding)
                _, events = stream(target, [url], timeout_ms=60_000)
                found = results(events)[0]
                self.assertIsNone(found["error"], found)
                self.assertEqual(found["bytes"]["body"], 5_000_000)

    def test_results_behind_a_slow_first_one_are_bounded(self):
        """In the order of the request what waits for the first counts like what waits for readers."""
        with Origin() as origin, Server(*AWAKE, replay_bytes_max=256 << 10, cache_bytes_max=0) as target:
            slow = origin.page(0, size=2000, latency="fixed:8s")
            urls = [slow] + [origin.page(n, size=40_000) for n in range(1, 200)]
            options = {"order": "input", "concurrency": 64, "timeout_ms": 60_000, "deadline_ms": 200_000}
            with Connection(target.address) as connection:
                connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
                events, asked = [], None
                for line in connection.read_lines(connection.read_head()):
                    events.append(json.loads(line))
                    if events[-1]["type"] == "progress" and not results(events):
                        asked = origin_json(origin, "/_stats?paths=0")[1]["requests"]
            self.assertEqual(invariants.broken(events, len(urls)), [])
            indices = [event["index"] for event in events if event["type"] == "result"]
            self.assertEqual(indices, list(range(len(urls))))
            self.assertIsNotNone(asked, "no progress before the first result")
            self.assertGreater(asked, 4)
            self.assertLess(asked, 80, "half the window is 128 KiB, a page some 40 KB")
