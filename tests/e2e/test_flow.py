"""What a stream sends while it has nothing to say, what it refuses to begin, whom it cuts, what it
drops, how often it sends, and what `/metrics` shows of that."""

import json
import re
import time
import unittest

import invariants
import server
from client import Connection, ask, events_of, request, stream
from server import wait_until
from ws import Raw, Socket

HEARTBEAT_MS = 40


def metric(target, name):
    """The sum of all samples whose name and labels begin so."""
    text = ask(target, "GET", "/metrics").body.decode()
    found = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name)]
    if not found:
        raise AssertionError(f"no metric {name}")
    return sum(found)


class Flow(unittest.TestCase):
    def setUp(self):
        _, self.origin = server.shared()

    def start(self, *more, **settings):
        running = server.Server(*more, **settings)
        self.addCleanup(running.stop)
        return running

    def begin(self, of, target, body, receive_buffer=None):
        """A connection behind the head of its answer, and the head."""
        connection = Connection(of.address, receive_buffer=receive_buffer)
        self.addCleanup(connection.close)
        connection.send(request("POST", target, body))
        head = connection.read_head()
        self.assertEqual(head.status, 200, head)
        return connection, head

    def events(self, of, target, accept=None, last=None):
        """The events of a stream that is read again over SSE or NDJSON."""
        fields = [f"Accept: {accept}"] if accept else []
        fields += [f"Last-Event-ID: {last}"] if last else []
        with Connection(of.address) as connection:
            connection.send(request("GET", target, fields=fields))
            head = connection.read_head()
            self.assertEqual(head.status, 200, head)
            return head, list(events_of(connection, head))


class Heartbeats(Flow):
    """A stream that waits for its page says that it is there."""

    def body(self):
        urls = [self.origin.page(1, latency="900ms")]
        return {"urls": urls, "options": {"progress_ms": 0, "cache_mode": "bypass"}}

    def test_ndjson_has_events_without_seq(self):
        running = self.start("--stream-heartbeat-ms", str(HEARTBEAT_MS))
        connection, head = self.begin(running, "/crawl/stream", self.body())
        events = [json.loads(line) for line in connection.read_lines(head)]
        beats = [event for event in events if event["type"] == "heartbeat"]
        self.assertGreater(len(beats), 3)
        for beat in beats:
            self.assertEqual(set(beat), {"type", "timestamp"})
            self.assertRegex(beat["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(invariants.broken(events, 1), [])

    def test_sse_has_comments_that_are_no_events(self):
        running = self.start("--stream-heartbeat-ms", str(HEARTBEAT_MS))
        connection, head = self.begin(running, "/crawl/sse", self.body())
        text = b"\n".join(connection.read_lines(head)).decode() + "\n"
        blocks = text.removeprefix("retry: 1000\n\n").split("\n\n")
        comments = [block for block in blocks if block.startswith(":")]
        self.assertGreater(len(comments), 3)
        self.assertEqual({"\n" in block for block in comments}, {False}, "a comment stands alone")
        events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: ")]
        self.assertEqual([event["type"] for event in events], ["metadata", "result", "summary"])

    def test_json_stays_json(self):
        running = self.start("--stream-heartbeat-ms", str(HEARTBEAT_MS))
        connection, head = self.begin(running, "/crawl", self.body())
        text = b"".join(connection.read_body(head))
        self.assertEqual(set(json.loads(text)), {"metadata", "results", "summary"})
        self.assertGreater(text.count(b"\n"), 3)

    def test_a_quiet_reader_of_another_connection_is_told_too(self):
        running = self.start("--stream-heartbeat-ms", str(HEARTBEAT_MS))
        _, head = self.begin(running, "/crawl/stream", self.body())
        target = f"/streams/{head.field('x-stream-id')}/events"
        _, events = self.events(running, target)
        self.assertIn("heartbeat", [event["type"] for event in events])
        self.assertEqual(invariants.broken(events, 1), [])


class Overload(Flow):
    """What there is no room for is refused before any work: 503 with the time to come back."""

    def refused(self, of, why):
        for target in ("/crawl", "/crawl/stream", "/crawl/sse"):
            answer = ask(of, "POST", target, {"urls": [self.origin.page(1)]})
            self.assertEqual(answer.status, 503, answer)
            self.assertEqual(answer.json()["error"]["code"], "overloaded")
            self.assertIn(why, answer.json()["error"]["message"])
            self.assertEqual(answer.field("retry-after"), "1")
        with Socket(of) as socket:
            socket.crawl("a", [self.origin.page(1)])
            event = socket.next("a")
            self.assertEqual((event["type"], event["error"]["code"]), ("error", "overloaded"))
            self.assertTrue(event["error"]["retryable"] and event["error"]["retry_after_ms"] >= 1000)

    def test_too_many_streams(self):
        running = self.start("--stream-streams-max", "2")
        stalled = [self.origin.at("/stall", at="head", for_="1h")]
        ids = []
        for _ in range(2):
            _, head = self.begin(running, "/crawl/stream", {"urls": stalled})
            ids.append(head.field("x-stream-id"))
        self.refused(running, "streams")
        self.assertEqual(ask(running, "DELETE", f"/streams/{ids[0]}").status, 200)
        _, events = stream(running, [self.origin.page(1)])
        self.assertEqual(events[-1]["status"], "completed")

    def bytes_of(self, running):
        return ask(running, "GET", "/healthz").json()["stream_bytes"]

    def test_too_many_bytes(self):
        limit = 1_048_576
        running = self.start("--stream-bytes-max", str(limit), replay_bytes_max=limit, ring_bytes_max=65536)
        urls = [self.origin.page(n, size=60000) for n in range(60)]
        slow, ids = [], []
        for _ in range(4):
            connection, head = self.begin(running, "/crawl/stream", {"urls": urls}, receive_buffer=4096)
            slow.append(connection)
            ids.append(head.field("x-stream-id"))
            if wait_until(lambda: self.bytes_of(running) >= limit, 5):
                break
        self.assertGreaterEqual(self.bytes_of(running), limit)
        self.refused(running, "buffers")
        for connection, stream_id in zip(slow, ids, strict=False):
            connection.close()
            ask(running, "DELETE", f"/streams/{stream_id}")
        # What is over can be forgotten where there is no room, on whichever core it was.
        fits = lambda: ask(running, "POST", "/crawl", {"urls": [self.origin.page(1)]}).status == 200
        self.assertTrue(wait_until(fits, 20))


class Resume(Flow):
    def test_as_sse_by_accept_with_a_last_event_id(self):
        running = self.start()
        head, events = stream(running, [self.origin.page(n) for n in range(6)], progress_ms=0)
        stream_id = head.field("x-stream-id")
        target = f"/streams/{stream_id}/events"
        head, rest = self.events(running, target, "text/event-stream", f"{stream_id}.3")
        self.assertEqual(head.field("content-type"), "text/event-stream")
        self.assertEqual(rest, events[4:])
        # The parameter wins over the field.
        _, rest = self.events(running, f"{target}?after=5", "text/event-stream", f"{stream_id}.3")
        self.assertEqual(rest, events[6:])
        _, rest = self.events(running, target, None, f"{stream_id}.6")
        self.assertEqual(rest, events[7:])

    def test_who_has_everything_is_not_kept_waiting(self):
        """Also who says that it has more than there will ever be."""
        running = self.start()
        head, events = stream(running, [self.origin.page(1)])
        stream_id = head.field("x-stream-id")
        last = events[-1]["seq"]
        for after in (last, last + 1, 2**63, 2**64 - 1):
            target = f"/streams/{stream_id}/events?after={after}"
            answer = ask(running, "GET", target, fields=["Accept: text/event-stream"])
            self.assertEqual(answer.status, 204, after)
            answer = ask(running, "GET", target)
            self.assertEqual((answer.status, answer.body), (200, b""), after)
            with Socket(running) as socket:
                socket.op("resume", id="r", stream_id=stream_id, after=after)
                # Only the end can say that this is it.
                self.assertEqual(socket.next("r", 20), events[-1])
                socket.op("ping", id="p")
                self.assertEqual(socket.next("p", 20)["type"], "pong")

    def test_readers_of_old_streams_do_not_keep_others(self):
        """As many as there may be are kept, however many of the oldest are being read."""
        kept = 4
        running = self.start("--stream-kept-max", str(kept), "--stream-replay-bytes-max", str(32 << 20), cores=1)
        big = [self.origin.page(1, size="900k")] * 4
        slow = [self.begin(running, "/crawl/stream", {"urls": big}, receive_buffer=4096) for _ in range(70)]

        def unread():
            text = ask(running, "GET", "/healthz").json()
            return text["streams_running"] == 0

        self.assertTrue(wait_until(unread, 60), "they end, though nobody reads them to the end")
        later = [stream(running, [self.origin.page(2)])[0].field("x-stream-id") for _ in range(3 * kept)]
        there = lambda stream_id: ask(running, "GET", f"/streams/{stream_id}").status == 200
        self.assertTrue(wait_until(lambda: sum(map(there, later)) <= kept, 10))
        for _, head in slow:
            self.assertTrue(there(head.field("x-stream-id")), "who reads keeps its stream")


class Slow(Flow):
    def test_a_reader_that_takes_too_little_is_cut_and_may_resume(self):
        """`slow_client: disconnect` cuts who takes something, but never enough."""
        running = self.start(ring_bytes_max=65536)
        urls = [self.origin.page(n, size=60000) for n in range(60)]
        options = {"slow_client": "disconnect", "stall_timeout_ms": 700, "concurrency": 8, "timeout_ms": 60000}
        body = {"urls": urls, "options": options}
        connection, head = self.begin(running, "/crawl/sse", body, receive_buffer=4096)
        with Raw(running, receive_buffer=4096) as raw:
            raw.send({"op": "crawl", "id": "a", "data": body})
            stream_id = raw.event()["stream_id"]
            self.assertTrue(self.sips_until_cut(raw.connection), "over WebSocket")
        self.assertTrue(self.sips_until_cut(connection), "over SSE")
        for stream_id in (stream_id, head.field("x-stream-id")):
            _, events = self.events(running, f"/streams/{stream_id}/events", "text/event-stream")
            self.assertEqual(invariants.broken(events, len(urls)), [])

    def sips_until_cut(self, connection):
        """Takes a little every now and then, so that it is slow and never stalls."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if connection.cut_within(0.1):
                return True
            connection.socket.recv(2048)
        return False

    def test_what_a_slow_reader_is_not_given_is_counted(self):
        running = self.start(replay_bytes_max=262_144, ring_bytes_max=65536)
        name = 'forebay_messages_dropped_total{kind="%s"}'
        urls = [self.origin.page(n, size=12000) for n in range(200)]
        body = {"urls": urls, "options": {"progress_ms": 10, "concurrency": 8}}
        connection, head = self.begin(running, "/crawl/stream", body, receive_buffer=4096)
        target = f"/streams/{head.field('x-stream-id')}"
        self.assertTrue(wait_until(lambda: ask(running, "GET", target).json()["state"] == "flushing", 60))
        time.sleep(0.3)  # a dozen of progress events, for which the last one stands
        events = [json.loads(line) for line in connection.read_lines(head)]
        self.assertEqual(invariants.broken(events, len(urls)), [])
        self.assertGreater(metric(running, name % "ephemeral"), 3)
        self.assertEqual(metric(running, name % "durable"), 0)


class Rings(Flow):
    def now(self, of):
        names = ("rings", "ring_frames", "ring_frames_limit", "ring_bytes")
        return {name: metric(of, f"forebay_send_{name}{{") for name in names}

    def test_the_gauges_show_what_waits_and_nothing_of_what_is_over(self):
        running = self.start(replay_bytes_max=1 << 20, ring_bytes_max=65536)
        idle = {"rings": 0, "ring_frames": 0, "ring_frames_limit": 0, "ring_bytes": 0}
        self.assertEqual(self.now(running), idle)
        urls = [self.origin.page(n, size=60000) for n in range(40)]
        body = {"urls": urls, "options": {"resume_window_s": 0}}
        readers = [self.begin(running, target, body, 4096)[0] for target in ("/crawl/stream", "/crawl/sse")]
        with Raw(running, receive_buffer=4096) as raw:
            raw.send({"op": "crawl", "id": "a", "data": body})
            raw.event()

            def busy():
                now = self.now(running)
                return now["rings"] == 3 and now["ring_frames"] > 3 and now["ring_bytes"] > 20000

            self.assertTrue(wait_until(busy, 30), self.now(running))
            now = self.now(running)
            self.assertGreaterEqual(now["ring_frames_limit"], 3 * 64)
            self.assertLessEqual(now["ring_bytes"], 3 * 65536)
            self.assertGreater(metric(running, "forebay_send_ring_refused_total"), 0)
            self.assertGreater(metric(running, "forebay_send_ring_high_water_bytes"), 30000)
            self.assertGreater(metric(running, "forebay_send_ring_frames_high_water"), 1)
        for reader in readers:
            reader.close()
        self.assertTrue(wait_until(lambda: self.now(running) == idle, 30), self.now(running))

    def test_a_websocket_that_says_nothing_has_no_ring(self):
        running = self.start()
        with Socket(running) as socket:
            socket.crawl("a", [self.origin.page(1)])
            socket.stream("a")
            self.assertTrue(wait_until(lambda: self.now(running)["rings"] == 0, 10))
            socket.crawl("b", [self.origin.at("/stall", at="head", for_="1h")])
            socket.next("b")
            self.assertTrue(wait_until(lambda: self.now(running)["rings"] == 1, 10))


class Sends(Flow):
    """What is ready leaves together: writes to sockets, counted by the loop itself."""

    COUNT = 100

    def writes(self, of, work):
        """Writes that the loops began meanwhile, but for those of the one look at the metrics."""
        name = re.compile(r'^forebay_ring_operations_total\{core="\d+",op="write"\} (\d+)', re.MULTILINE)

        def count():
            text = ask(of, "GET", "/metrics").body.decode()
            return sum(map(int, name.findall(text)))

        before = count()
        between = count() - before
        before = count()
        work()
        return count() - before - between

    def test_a_cached_stream_takes_few_writes_on_each_transport(self):
        running = self.start()
        url = self.origin.page(1, size=2000)
        stream(running, [url])
        urls = [url] * self.COUNT
        options = {"progress_ms": 0}

        def over_http(target):
            connection, head = self.begin(running, target, {"urls": urls, "options": options})
            lines = list(connection.read_lines(head))
            results = sum(b'"type":"result"' in line for line in lines)
            self.assertEqual(results, self.COUNT)

        def over_ws(socket):
            socket.crawl("a", urls, **options)
            events = socket.stream("a")
            self.assertEqual(invariants.broken(events, self.COUNT), [])

        for target in ("/crawl/stream", "/crawl/sse"):
            with self.subTest(target):
                self.assertLessEqual(self.writes(running, lambda: over_http(target)), self.COUNT // 4)
        for compression in (None, "deflate"):
            with self.subTest(compression), Socket(running, compression=compression) as socket:
                self.assertLessEqual(self.writes(running, lambda: over_ws(socket)), self.COUNT // 4)


if __name__ == "__main__":
    unittest.main()
