"""What nodes share of streams, keys and turns, over every kind of Redis; and a primary's death in the midst
of a stream."""

import json
import os
import shutil
import tempfile
import threading
import time
import unittest

import invariants
import server
from client import Connection, ask, origin_json, request
from redises import FIRST, PATIENT, cluster_of_six, sentinel_pair
from server import QUICK, Origin, Server, wait_until
from test_access import bearer, new_key
from test_job_ways import owns
from test_limits import HTML, PAGE, PAUSE_S


class Ways(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on two cores only: it is the same work again")
        self.origin = server.shared()[1]
        self.folder = tempfile.mkdtemp(prefix="forebay-ways-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.key, entry = new_key("one", "crawl,extract,metrics")
        self.scarce, limited = new_key("scarce", "extract", "requests_per_min = 12\n")
        self.keys = os.path.join(self.folder, "keys.toml")
        with open(self.keys, "w", encoding="utf-8") as file:
            file.write(entry + limited)

    def node(self, url, *more):
        started = Server("--redis-url", url, *PATIENT, "--auth-keys-file", self.keys, *more)
        self.addCleanup(started.kill)
        self.up(started)
        return started

    def up(self, target):
        health = lambda: ask(target, "GET", "/healthz", fields=[bearer(self.key)]).json()["redis"]  # noqa: E731
        self.assertTrue(wait_until(lambda: health()["state"] == "up", 60), target.output())

    def lines(self, target, method, path, body=None, fields=()):
        """The events of an answer, as they come."""
        connection = Connection(target.address)
        self.addCleanup(connection.close)
        connection.send(request(method, path, body, [bearer(self.key), *fields]))
        head = connection.read_head()
        if head.status != 200:
            raise AssertionError(f"{head.status}: {b''.join(connection.read_body(head))}")
        return (json.loads(line) for line in connection.read_lines(head))

    def crawl(self, target, urls, fields=(), **options):
        return self.lines(target, "POST", "/crawl/stream", {"urls": urls, "options": {**FIRST, **options}}, fields)

    def shown(self, target, stream_id):
        """A stream's durable events, as a node shows them; none, where it does not know it yet."""
        try:
            events = list(self.lines(target, "GET", f"/streams/{stream_id}/events"))
        except AssertionError:
            return []
        return durable(events)

    def everything(self, url):
        one, other = self.node(url), self.node(url)
        self.logs_and_keys(one, other)
        self.turns(url)
        self.rates(one, other)
        self.a_node_dies(url, other)

    def logs_and_keys(self, one, other):
        urls, field = [self.origin.page(9000 + n, latency="40ms") for n in range(20)], ["Idempotency-Key: ways"]
        first = durable(self.crawl(one, urls, field, concurrency=4))
        self.assertEqual(invariants.broken(first, 20), [])
        stream_id = first[0]["stream_id"]
        self.assertTrue(wait_until(lambda: self.shown(other, stream_id) == first, 20))
        rest = durable(self.lines(other, "GET", f"/streams/{stream_id}/events?after=9"))
        self.assertEqual(rest, first[10:])
        self.assertEqual(durable(self.crawl(other, urls, field, concurrency=4)), first)
        body = {"urls": urls[:1], "options": FIRST}
        self.assertEqual(ask(other, "POST", "/crawl/stream", body, [bearer(self.key), *field]).status, 409)

    def turns(self, url):
        pace = ("--fetch-host-interval-ms", "200", "--redis-prefix", "turns")
        targets = [self.node(url, *pace) for _ in range(2)]
        with Origin() as origin:
            asked = [threading.Thread(target=lambda n=n, target=target: list(
                self.crawl(target, [origin.page(10 * n + at) for at in range(4)]))) for n, target in enumerate(targets)]
            began = time.monotonic()
            for thread in asked:
                thread.start()
            for thread in asked:
                thread.join(30)
            self.assertEqual(len(origin_json(origin, "/_requests")[1]), 8)
            self.assertGreater(time.monotonic() - began, 7 * 0.2)
        for target in targets:
            target.kill()

    def rates(self, one, other):
        began, allowed = time.monotonic(), 0
        for n in range(30):
            answer = ask((one, other)[n % 2], "POST", "/extract", PAGE, [*HTML, bearer(self.scarce)])
            self.assertIn(answer.status, (200, 429), answer)
            allowed += answer.status == 200
            time.sleep(PAUSE_S / 2)
        earned = (time.monotonic() - began) / 5
        self.assertGreaterEqual(allowed, 12)
        self.assertLessEqual(allowed, 12 + earned + 2)

    def a_node_dies(self, url, other):
        dying = self.node(url)
        urls = [self.origin.page(9100 + n, latency="30ms") for n in range(6)]
        urls += [self.origin.page(9120 + n, latency="20s") for n in range(2)]
        lines = self.crawl(dying, urls, concurrency=2)
        got = []
        while len(got) < 7:
            got.extend(durable([next(lines)]))
        stream_id = got[0]["stream_id"]
        last = lambda: ask(other, "GET", f"/streams/{stream_id}", fields=[bearer(self.key)]).json().get("last_seq")  # noqa: E731
        self.assertTrue(wait_until(lambda: last() == 6, 20), last())
        dying.kill()
        events = self.shown(other, stream_id)
        self.assertEqual(events[:-1], got)
        self.assertEqual((events[-1]["type"], events[-1]["seq"]), ("error", 7))

    def through_a_death(self, url, kill):
        """The primary that has a stream's log dies while the stream runs: nobody who reads it here notices,
        and what its heir had not heard of is written again for who reads elsewhere."""
        one, other = self.node(url), self.node(url)
        lines = self.crawl(one, [self.origin.page(9200 + n, latency="100ms") for n in range(80)], concurrency=2)
        got = [next(lines) for _ in range(8)]
        kill(got[0]["stream_id"])
        got.extend(lines)
        got = durable(got)
        self.assertEqual(invariants.broken(got, 80), [])
        self.assertEqual(got[-1]["successful"], 80)
        self.up(other)
        self.assertTrue(wait_until(lambda: self.shown(other, got[0]["stream_id"]) == got, 60))

    def test_a_cluster_of_six(self):
        with cluster_of_six() as (nodes, url):
            self.everything(url)

            def kill(stream_id):
                next(redis for redis in nodes if owns(redis, f"forebay:{{{stream_id}}}:facts")).kill()

            self.through_a_death(url, kill)

    def test_sentinels(self):
        with sentinel_pair() as (primary, replica, url):
            self.everything(url)
            self.assertTrue(wait_until(replica.follows))
            self.through_a_death(url, lambda _: primary.kill())


def durable(events):
    return [event for event in events if "seq" in event]


if __name__ == "__main__":
    unittest.main()
