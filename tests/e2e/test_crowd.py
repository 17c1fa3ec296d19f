"""Many streams at once, by a client of their own: `loadtest` checks every event as it comes. At full
size (TEST_FULL) that is 100,000 events on each transport."""

import json
import subprocess
import sys
import unittest

import server
from client import Connection, ask, request
from server import FULL, LOADTEST, QUICK, Origin, Server, wait_until

ALONE = True  # it loads both cores


def say(*words):
    """Figures for whoever reads the log: shown also when the test passes."""
    print(*words, file=sys.__stdout__, flush=True)


def load(target, transport, *arguments):
    """The outcome of one group of `loadtest run`; its exit status must be 0, so no request failed."""
    command = [LOADTEST, "run", "--url", target.url, "--transport", transport, "--json", "-", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=900)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}: {done.stdout.decode()[-3000:]}{done.stderr.decode()[-1000:]}")
    return json.loads(done.stdout)["groups"][0]


ONCE = "on two cores only: it is the same work again"


class Cut(unittest.TestCase):
    """No durable event is lost or doubled, wherever and however often a stream is cut."""

    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest(ONCE)

    def test_random_cuts_on_each_transport(self):
        streams = 20 if QUICK else 1000 if FULL else 100
        with Origin() as origin, Server(cache_bytes_max=64 << 20) as target:
            for transport in ("ndjson", "sse", "ws"):
                with self.subTest(transport):
                    group = load(
                        target, transport, "--crawl", origin.page(1, size=2000), "--urls", 100,
                        "--closed", 8, "-n", streams, "--cut-after-events", 20, "--cuts", 3,
                        "--check-full", "--timeout", "120s",
                    )
                    counts = group["counts"]
                    say(transport, {name: counts[name] for name in ("durable", "cuts", "replayed", "gap_events")})
                    self.assertEqual((counts["violations"], group["violations"]), (0, {}))
                    self.assertEqual(counts["gap_events"], 0)
                    self.assertEqual(counts["results"], streams * 100)
                    self.assertGreater(counts["cuts"], streams)
            metrics = ask(target, "GET", "/metrics").body.decode()
            self.assertIn('forebay_messages_dropped_total{kind="durable"} 0', metrics)


class SlowHalf(unittest.TestCase):
    """Of many streams half belong to clients that take next to nothing: the others get all of theirs,
    memory stays below the caps, and nothing of the slow ones is left behind."""

    def test_the_fast_half_is_served(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest(ONCE)
        half = 20 if QUICK else 250 if FULL else 60
        replay = 262_144
        with Origin() as origin, Server(replay_bytes_max=replay, ring_bytes_max=65536, cache_bytes_max=0) as target:
            before = target.descriptors()
            fast = ("--crawl", origin.page("{{n}}", size=1500, latency="5ms"), "--urls", 4,
                    "--option", "timeout_ms=120000", "--option", "deadline_ms=600000",
                    "--closed", half, "-n", half * 2, "--timeout", "300s")
            alone = load(target, "ndjson", *fast)
            slow = [self.begin(target, origin, n) for n in range(half)]
            wait_until(lambda: self.health(target)["stream_bytes"] > half * 1000, 20)
            beside = load(target, "ndjson", *fast)
            for name, group in (("alone", alone), ("beside the slow half", beside)):
                self.assertEqual(group["counts"]["violations"], 0)
                self.assertEqual(group["counts"]["pages_ok"], half * 8, group["errors"])
                say(name, "gap between events:", json.dumps(group.get("measures", {}).get("gap")))
            health = self.health(target)
            say("streams:", health["streams_running"], "bytes in their logs:", health["stream_bytes"])
            self.assertGreaterEqual(health["streams_running"], half * 9 // 10)
            # A log may hold a window, and each page that was under way when it filled up.
            self.assertLessEqual(health["stream_bytes"], (half + half * 4) * replay)
            for connection in slow:
                connection.close()
            ended = wait_until(lambda: self.health(target)["streams_running"] == 0, 60)
            self.assertTrue(ended, self.health(target))
            after = wait_until(lambda: target.descriptors() <= before + 40, 60)
            self.assertTrue(after, f"{before} descriptors before, {target.descriptors()} after")

    @staticmethod
    def begin(target, origin, n):
        """A client that sends a request and never reads."""
        urls = [origin.page(n * 100 + k, size=30000) for k in range(60)]
        options = {"concurrency": 2, "resume_window_s": 0, "deadline_ms": 3_600_000, "stall_timeout_ms": 600_000}
        connection = Connection(target.address, receive_buffer=4096)
        connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
        return connection

    @staticmethod
    def health(target):
        return ask(target, "GET", "/healthz").json()


class Sends(unittest.TestCase):
    def test_head_and_metadata_are_one_send_and_what_is_ready_another(self):
        """Counted by the flight recorder: every send that the server made for a stream."""
        with Origin() as origin, Server(cache_bytes_max=64 << 20) as target:
            url = origin.page(1, size=2000)
            stalled = origin.at("/stall", at="head", for_="1h")
            self.assertEqual(ask(target, "POST", "/crawl", {"urls": [url]}).status, 200)
            for urls, most in (([stalled], 1), ([url] * 100 + [stalled], 25)):
                with Connection(target.address) as connection:
                    options = {"progress_ms": 0, "timeout_ms": 60_000}
                    connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
                    head = connection.read_head()
                    lines = connection.read_lines(head)
                    self.assertEqual(json.loads(next(lines))["type"], "metadata")
                    for _ in urls[1:]:
                        next(lines)
                    trace = ask(target, "GET", f"/streams/{head.field('x-stream-id')}/trace").json()
                    sends = [r for r in trace["records"] if r["mark"] in ("head_sent", "flushed")]
                    say(f"{len(urls)} URLs, {len(urls)} events: {len(sends)} sends")
                    self.assertEqual(sends[0]["mark"], "head_sent")
                    self.assertLessEqual(len(sends), most)
                    ask(target, "DELETE", f"/streams/{head.field('x-stream-id')}")


if __name__ == "__main__":
    unittest.main()
