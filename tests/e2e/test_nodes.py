"""Streams of several nodes that share one Redis: read, resumed and ended on any of them, also after
the node that crawled was killed."""

import json
import threading
import time
import unittest

import invariants
import server
from client import Connection, ask, origin_json, request, results, stream
from providers import Provider, searxng
from redises import FIRST, Redis, becomes, node
from server import QUICK, Origin, Server, wait_until


class Nodes(unittest.TestCase):
    """Two nodes and a Redis, for all tests of a class."""

    flags = ()
    # URLs that a stream begins with, where it finds its others later; and events between that.
    begins, found = None, 0

    @classmethod
    def setUpClass(cls):
        if Server.cores == 1 and not QUICK:
            raise unittest.SkipTest("on two cores only: it is the same work again")
        cls.origin = server.shared()[1]
        cls.redis = Redis()
        cls.addClassCleanup(cls.redis.end)
        cls.one, cls.other = node(cls.redis.url, *cls.flags), node(cls.redis.url, *cls.flags)
        cls.addClassCleanup(cls.one.stop)
        cls.addClassCleanup(cls.other.stop)
        assert becomes(cls.one, "up") and becomes(cls.other, "up")

    def asking(self, urls, **options):
        """Where a stream of these URLs is asked for, and how."""
        return "/crawl/stream", {"urls": urls, "options": {**FIRST, **options}}

    def broken(self, events, total):
        return invariants.broken(events, total, self.begins)

    def begin(self, target, urls, fields=(), **options):
        """A stream under way and its id; read as far as `metadata`."""
        connection = Connection(target.address)
        self.addCleanup(connection.close)
        connection.send(request("POST", *self.asking(urls, **options), fields))
        head = connection.read_head()
        self.assertEqual(head.status, 200)
        lines = (json.loads(line) for line in connection.read_lines(head))
        first = next(lines)
        self.assertEqual(first["type"], "metadata")
        return first["stream_id"], [first], lines

    def events(self, target, stream_id, after=None, seconds=60):
        """All of a stream's events from any node."""
        path = f"/streams/{stream_id}/events" + ("" if after is None else f"?after={after}")
        with Connection(target.address) as connection:
            connection.send(request("GET", path))
            head = connection.read_head()
            if head.status != 200:
                raise AssertionError(f"{head.status}: {b''.join(connection.read_body(head))}")
            return [json.loads(line) for line in connection.read_lines(head)]

    def known(self, target, stream_id):
        """Whether a node can find it: the log is written behind the stream."""
        return ask(target, "GET", f"/streams/{stream_id}").status == 200

    @staticmethod
    def durable(events):
        return [event for event in events if "seq" in event]


class Anywhere(Nodes):
    def test_a_finished_stream_is_read_on_another_node(self):
        urls = [self.origin.page(3000 + n, size=2000) for n in range(60)] + ["http://10.0.0.1/"]
        stream_id, first, lines = self.begin(self.one, urls)
        first.extend(lines)
        self.assertTrue(wait_until(lambda: self.known(self.other, stream_id)))
        again = self.events(self.other, stream_id)
        self.assertEqual(self.durable(again), self.durable(first))
        self.assertEqual(self.broken(again, len(urls)), [])
        self.assertEqual(self.durable(self.events(self.other, stream_id, after=40)), self.durable(first)[41:])
        state = ask(self.other, "GET", f"/streams/{stream_id}").json()
        self.assertEqual((state["state"], state["total_urls"]), ("closed", 61))

    def test_a_running_stream_is_followed_on_another_node(self):
        urls = [self.origin.page(3100 + n, latency="60ms") for n in range(40)]
        stream_id, first, lines = self.begin(self.one, urls, concurrency=2)
        self.assertTrue(wait_until(lambda: self.known(self.other, stream_id)))
        there = []
        reader = threading.Thread(target=lambda: there.extend(self.events(self.other, stream_id)))
        reader.start()
        first.extend(lines)
        reader.join(30)
        self.assertEqual(self.durable(there), self.durable(first))
        self.assertEqual(self.broken(there, 40), [])

    def test_a_client_that_was_cut_off_goes_on_elsewhere_and_holds_the_stream(self):
        """Longer than its resume window: only the reader on the other node keeps it."""
        urls = [self.origin.page(3200 + n, latency="150ms") for n in range(40)]
        stream_id, first, lines = self.begin(self.one, urls, concurrency=1, resume_window_s=2)
        first.append(next(lines))
        lines.close()
        self.assertTrue(wait_until(lambda: self.known(self.other, stream_id)))
        after = self.durable(first)[-1]["seq"]
        rest = self.durable(self.events(self.other, stream_id, after))
        events = self.durable(first) + rest
        self.assertEqual([event["seq"] for event in events], list(range(42 + self.found)))
        self.assertEqual((events[-1]["type"], events[-1]["status"], events[-1]["successful"]), ("summary", "completed", 40))

    def test_delete_reaches_the_node_that_crawls(self):
        urls = [self.origin.page(3300 + n, latency="300ms") for n in range(40)]
        stream_id, first, lines = self.begin(self.one, urls, concurrency=1)
        self.assertTrue(wait_until(lambda: self.known(self.other, stream_id)))
        answer = ask(self.other, "DELETE", f"/streams/{stream_id}")
        self.assertEqual((answer.status, answer.json()["state"]), (200, "closed"))
        first.extend(lines)
        self.assertEqual((first[-1]["type"], first[-1]["status"]), ("summary", "cancelled"))
        self.assertEqual(self.broken(first, 40), [])

    def test_there_is_no_stream_that_nobody_began(self):
        for stream_id in ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"):
            self.assertEqual(ask(self.other, "GET", f"/streams/{stream_id}").status, 404)

    def test_an_idempotency_key_is_known_everywhere(self):
        urls = [self.origin.page(3400 + n, latency="50ms") for n in range(10)]
        field = ["Idempotency-Key: from-anywhere"]
        stream_id, first, lines = self.begin(self.one, urls, field)
        same, there, there_lines = self.begin(self.other, urls, field)
        self.assertEqual(same, stream_id)
        first.extend(lines)
        there.extend(there_lines)
        self.assertEqual(self.durable(there), self.durable(first))
        for target in (self.one, self.other):
            answer = ask(target, "POST", *self.asking(urls[:1]), field)
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (409, "idempotency_conflict"))


    def test_an_idempotency_key_is_free_when_its_stream_is_over(self):
        field, urls = ["Idempotency-Key: short-lived"], [self.origin.page(3450 + n) for n in range(2)]
        _, _, lines = self.begin(self.one, urls[:1], field, resume_window_s=1)
        self.assertEqual(list(lines)[-1]["type"], "summary")
        # Another request may have it now, on another node, long before its time in Redis is over.
        begun = lambda: ask(self.other, "POST", *self.asking(urls, resume_window_s=1), field).status == 200  # noqa: E731
        self.assertTrue(wait_until(begun, 20))


class Turns(Nodes):
    def test_a_hosts_requests_are_an_interval_apart_whoever_makes_them(self):
        pace = ("--fetch-host-interval-ms", "200", "--redis-prefix", "turns")
        with node(self.redis.url, *pace) as one, node(self.redis.url, *pace) as other, Origin() as origin:
            self.assertTrue(becomes(one, "up") and becomes(other, "up"))
            urls = [[origin.page(10 * n + at) for at in range(5)] for n in range(2)]
            asked = [threading.Thread(target=stream, args=(target, pages), kwargs=FIRST)
                     for target, pages in zip((one, other), urls)]
            began = time.monotonic()
            for thread in asked:
                thread.start()
            for thread in asked:
                thread.join(30)
            took = time.monotonic() - began
            self.assertEqual(len(origin_json(origin, "/_requests")[1]), 10)
            # Ten starts are nine intervals; each node for itself would need four.
            self.assertGreater(took, 9 * 0.2)

    def test_a_crawl_delay_holds_for_all_nodes(self):
        with node(self.redis.url, "--redis-prefix", "delays") as one, \
                node(self.redis.url, "--redis-prefix", "delays") as other, Origin() as origin:
            self.assertTrue(becomes(one, "up") and becomes(other, "up"))
            self.assertEqual(ask(origin, "GET", "/_set?robots=crawl-delay:0.3").status, 200)
            asked = [threading.Thread(target=stream, args=(target, [origin.page(10 * n + at) for at in range(4)]))
                     for n, target in enumerate((one, other))]
            began = time.monotonic()
            for thread in asked:
                thread.start()
            for thread in asked:
                thread.join(30)
            self.assertEqual(len(origin_json(origin, "/_requests?path=/page/")[1]), 8)
            self.assertGreater(time.monotonic() - began, 7 * 0.3)

    def test_a_host_that_wants_to_be_left_alone_is_left_alone_by_all(self):
        for pace in ((), ("--fetch-host-interval-ms", "10")):
            flags = ("--redis-prefix", f"held{len(pace)}", *pace)
            with self.subTest(pace), node(self.redis.url, *flags) as one, node(self.redis.url, *flags) as other, \
                    Origin() as origin:
                self.assertTrue(becomes(one, "up") and becomes(other, "up"))
                began = time.monotonic()
                _, events = stream(one, [origin.status(429, retry_after=5)], **FIRST)
                self.assertEqual(results(events)[0]["status"], 429)
                # That it was said is told to the others behind the answer's back.
                told = lambda: self.redis.ask("KEYS", f"held{len(pace)}:turn:*")  # noqa: E731
                self.assertTrue(wait_until(told))
                _, events = stream(other, [origin.page(1), origin.page(2)], **FIRST)
                self.assertEqual([result["error"] for result in results(events).values()], [None, None])
                self.assertGreater(time.monotonic() - began, 5)
                # Whose time is over before is told at once.
                stream(one, [origin.status(429, retry_after=30)], **FIRST)
                late = lambda: results(stream(other, [origin.page(3)], timeout_ms=5000, cache_mode="bypass", **FIRST)[1])[0]["error"]  # noqa: E731
                self.assertTrue(wait_until(lambda: (late() or {}).get("code") == "host_throttled"))


class Lost(Nodes):
    def test_a_stream_of_a_node_that_was_killed_is_replayed_and_ended(self):
        dying = node(self.redis.url, *self.flags)
        self.assertTrue(becomes(dying, "up"))
        urls = [self.origin.page(3500 + n, latency="30ms") for n in range(6)]
        urls += [self.origin.page(3520 + n, latency="20s") for n in range(2)]
        stream_id, first, lines = self.begin(dying, urls, concurrency=2)
        written = 7 + self.found
        while len(self.durable(first)) < written:
            first.append(next(lines))
        self.assertTrue(wait_until(lambda: len(self.redis.ask("XRANGE", f"forebay:{{{stream_id}}}:log", "-", "+")) == written))
        dying.kill()
        events = self.durable(self.events(self.other, stream_id))
        self.assertEqual(events[:written], self.durable(first)[:written])
        self.assertEqual([event["seq"] for event in events], list(range(written + 1)))
        last = events[-1]
        self.assertEqual((last["type"], last["completed"], last["total"]), ("error", 6, 8))
        self.assertEqual(last["error"]["code"], "internal_error")
        self.assertEqual(self.broken(events, 8), [])
        # The same for whoever comes later, on whichever node.
        self.assertEqual(self.durable(self.events(self.one, stream_id)), events)

    def test_without_redis_a_stream_goes_on_and_is_resumed_where_it_is(self):
        with Redis() as redis, Server("--redis-url", redis.url, *self.flags) as alone:
            self.assertTrue(becomes(alone, "up"))
            urls = [self.origin.page(3600 + n, latency="40ms") for n in range(30)]
            stream_id, first, lines = self.begin(alone, urls, concurrency=2)
            first.append(next(lines))
            redis.kill()
            first.extend(lines)
            self.assertEqual(self.broken(first, 30), [])
            self.assertEqual(first[-1]["successful"], 30)
            self.assertEqual(self.durable(self.events(alone, stream_id)), self.durable(first))
            redis.start()
            self.assertTrue(becomes(alone, "up"))
            # What was written meanwhile is in the log now.
            with node(redis.url, *self.flags) as other:
                self.assertTrue(becomes(other, "up"))
                self.assertTrue(wait_until(lambda: self.known(other, stream_id)))
                self.assertEqual(self.durable(self.events(other, stream_id)), self.durable(first))


class Searched:
    """As its other base has it, for streams whose URLs a search finds."""

    begins, found = 0, 1

    @classmethod
    def setUpClass(cls):
        cls.provider = Provider()
        cls.addClassCleanup(cls.provider.close)
        cls.flags = ("--search-provider", "searxng", "--search-url", cls.provider.url)
        super().setUpClass()

    def asking(self, urls, **options):
        self.provider.says(searxng([(url, f"Title {n}", f"Snippet {n}") for n, url in enumerate(urls)]))
        body = {"query": "old weirs", "limit": len(urls), "options": {**FIRST, **options}}
        return "/deepsearch/stream", body


class SearchedAnywhere(Searched, Anywhere):
    """Deepsearches on other nodes."""


class SearchedLost(Searched, Lost):
    """Deepsearches whose node or Redis is lost."""


if __name__ == "__main__":
    unittest.main()
