"""SIGTERM while streams run: what can end in its time does, what can't is told so, and then the process
is gone. Each test has a server of its own."""

import shutil
import signal
import time
import unittest

import invariants
import server
from client import Connection, ask, events_of, origin_json, request
from redises import Redis, becomes, node
from websockets.exceptions import ConnectionClosed
from ws import Socket

LONG_S = 120  # a drain that no test waits for: exit is awaited for less


class Drain(unittest.TestCase):
    def setUp(self):
        _, self.origin = server.shared()
        self.stalled = 0

    def start(self, drain_s, **settings):
        running = server.Server("--drain-timeout-s", str(drain_s), **settings)
        self.addCleanup(running.kill)
        return running

    def body(self, urls, **options):
        options = {"timeout_ms": 60000, "deadline_ms": 120_000, "concurrency": 16, **options}
        return {"urls": urls, "options": options}

    def slow_pages(self, count, seconds):
        return [self.origin.page(n, latency=f"{seconds * 1000}ms") for n in range(count)]

    def stalls(self, count):
        """Pages that never come, others each time: equal ones would share a fetch."""
        self.stalled += count
        first = self.stalled - count
        return [self.origin.at("/stall", at="head", for_="1h", n=first + n) for n in range(count)]

    def begin(self, of, body, target="/crawl/stream"):
        connection = Connection(of.address)
        self.addCleanup(connection.close)
        connection.send(request("POST", target, body))
        return connection, connection.read_head()

    def terminate(self, running):
        running.child.send_signal(signal.SIGTERM)

    def ended(self, running):
        self.assertEqual(running.child.wait(server.STOP_S), 0, running.output())

    def lets_in(self, running):
        try:
            Connection(running.address).close()
        except ConnectionRefusedError:
            return False
        return True

    def core_of(self, running, stream_id):
        """The cores of a stream's readers."""
        state = ask(running, "GET", f"/streams/{stream_id}").json()
        return [reader["core"] for reader in state["readers"]]

    def given_up(self, events, urls):
        self.assertEqual(invariants.broken(events, urls), [])
        last = events[-1]
        self.assertEqual((last["type"], last["error"]["code"]), ("error", "draining"))
        self.assertTrue(last["error"]["retryable"], last)
        self.assertEqual((last["error"]["status"], last["total"]), (503, urls))


class Finish(Drain):
    def test_streams_that_end_in_time_end_as_ever(self):
        """Pages run on every core, connections need not be on each."""
        running = self.start(LONG_S)
        connection, head = self.begin(running, self.body(self.slow_pages(12, 3)))
        self.terminate(running)
        events = list(events_of(connection, head))
        self.assertEqual(invariants.broken(events, 12), [])
        self.assertEqual((events[-1]["status"], events[-1]["successful"]), ("completed", 12))
        self.ended(running)

    def test_a_stream_that_is_read_on_another_core_only(self):
        if server.Server.cores < 2:
            self.skipTest("there is one core")
        running = self.start(LONG_S, cores=2)
        connection, head = self.begin(running, self.body(self.slow_pages(12, 4)))
        stream_id = head.field("x-stream-id")
        own = self.core_of(running, stream_id)
        for _ in range(64):
            reader = Connection(running.address)
            self.addCleanup(reader.close)
            reader.send(request("GET", f"/streams/{stream_id}/events"))
            again = reader.read_head()
            if self.core_of(running, stream_id)[-1] not in own:
                break
            reader.close()
        connection.close()
        self.assertTrue(server.wait_until(lambda: len(self.core_of(running, stream_id)) == 1))
        self.assertNotEqual(self.core_of(running, stream_id), own)
        self.terminate(running)
        events = list(events_of(reader, again))
        self.assertEqual(invariants.broken(events, 12), [])
        self.assertEqual(events[-1]["status"], "completed")
        self.ended(running)

    def test_streams_that_nobody_can_read_any_more_keep_nobody_waiting(self):
        running = self.start(LONG_S)
        origin_json(self.origin, "/_reset")
        for _ in range(4):
            connection, _ = self.begin(running, self.body(self.stalls(2), resume_window_s=3600))
            connection.close()
        self.assertEqual(origin_json(self.origin, "/_wait?requests=8&timeout=20s")[0], 200)
        self.terminate(running)
        self.ended(running)


    @unittest.skipUnless(shutil.which("redis-server"), "needs redis-server")
    def test_a_stream_that_others_can_read_goes_on_for_them(self):
        with Redis() as redis, node(redis.url) as other:
            running = node(redis.url, "--drain-timeout-s", str(LONG_S))
            self.addCleanup(running.kill)
            self.assertTrue(becomes(running, "up") and becomes(other, "up"))
            connection, head = self.begin(running, self.body(self.slow_pages(8, 4)))
            # Its log is copied behind the events' back.
            shared = lambda: ask(other, "GET", f"/streams/{head.field('x-stream-id')}").status == 200
            self.assertTrue(server.wait_until(shared))
            connection.close()
            self.terminate(running)
            with Connection(other.address) as reader:
                reader.send(request("GET", f"/streams/{head.field('x-stream-id')}/events"))
                again = reader.read_head()
                self.assertEqual(again.status, 200, again)
                events = list(events_of(reader, again))
            self.assertEqual(invariants.broken(events, 8), [])
            self.assertEqual((events[-1]["type"], events[-1].get("status")), ("summary", "completed"))
            self.ended(running)


class GiveUp(Drain):
    def test_what_takes_too_long_ends_with_an_error_on_every_transport(self):
        origin_json(self.origin, "/_reset")
        running = self.start(1)
        lines, lines_head = self.begin(running, self.body(self.stalls(2)))
        whole = Connection(running.address)
        self.addCleanup(whole.close)
        whole.send(request("POST", "/crawl", self.body(self.stalls(2))))
        sse, sse_head = self.begin(running, self.body(self.stalls(2)), "/crawl/sse")
        with Socket(running) as socket:
            socket.crawl("a", self.stalls(2), timeout_ms=60000, deadline_ms=120_000, concurrency=16)
            begun = [socket.next("a")]
            self.assertEqual(origin_json(self.origin, "/_wait?requests=8&timeout=20s")[0], 200)
            self.terminate(running)
            self.given_up(begun + socket.stream("a"), 2)
            with self.assertRaises(ConnectionClosed):
                socket.event()
            self.assertEqual(socket.connection.close_code, 1001)
        self.given_up(list(events_of(lines, lines_head)), 2)
        self.given_up(list(events_of(sse, sse_head)), 2)
        answer = whole.read_response().json()
        self.assertEqual(answer["error"]["error"]["code"], "draining", answer["error"])
        self.assertEqual(len(answer["results"]), 2)
        for connection in (lines, sse, whole):
            self.assertTrue(connection.ended())
        self.ended(running)
        self.assertEqual(origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")[0], 200)

    def test_a_stream_that_is_paused_by_its_reader(self):
        """It has events left to send and URLs left to fetch; all of them come, then the error."""
        running = self.start(2, replay_bytes_max=262_144, ring_bytes_max=65536)
        urls = [self.origin.page(n, size=12000) for n in range(150)]
        connection = Connection(running.address, receive_buffer=4096)
        self.addCleanup(connection.close)
        connection.send(request("POST", "/crawl/stream", self.body(urls)))
        head = connection.read_head()
        state = f"/streams/{head.field('x-stream-id')}"
        paused = server.wait_until(lambda: ask(running, "GET", state).json()["state"] == "flushing", 60)
        self.assertTrue(paused)
        self.terminate(running)
        # Nobody is let in any more, so that is a sign of what it does.
        self.assertTrue(server.wait_until(lambda: not self.lets_in(running), 10))
        time.sleep(2.2)
        events = list(events_of(connection, head))
        self.given_up(events, len(urls))
        self.ended(running)


class Door(Drain):
    """Who comes while the server stops."""

    def test_new_connections_are_refused_and_those_that_were_made_are_answered(self):
        running = self.start(LONG_S)
        connection, head = self.begin(running, self.body(self.slow_pages(2, 4)))
        early = [Connection(running.address) for _ in range(4)]
        for made in early:
            self.addCleanup(made.close)
        self.terminate(running)
        self.assertTrue(server.wait_until(lambda: not self.lets_in(running), 10))
        for made, target in zip(early, ("/readyz", "/healthz", "/livez", "/crawl"), strict=True):
            body = self.body(self.stalls(1)) if target == "/crawl" else None
            made.send(request("POST" if body else "GET", target, body))
            answer = made.read_response()
            self.assertEqual(answer.status, 200 if target == "/livez" else 503, answer)
            self.assertEqual(answer.field("connection"), "close")
            if target == "/healthz":
                self.assertTrue(answer.json()["draining"])
            else:
                self.assertIn(b"ok" if target == "/livez" else b"draining", answer.body)
        events = list(events_of(connection, head))
        self.assertEqual(events[-1]["status"], "completed")
        self.ended(running)

    def test_a_second_signal_ends_at_once(self):
        running = self.start(LONG_S)
        self.begin(running, self.body(self.stalls(2)))
        self.terminate(running)
        self.assertTrue(server.wait_until(lambda: not self.lets_in(running), 10))
        self.assertTrue(running.alive(), "it waits for its stream")
        self.terminate(running)
        self.assertEqual(running.child.wait(server.STOP_S), 130)


if __name__ == "__main__":
    unittest.main()
