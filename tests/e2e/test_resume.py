"""A stream outlives its connection: /streams/{id}, resuming over NDJSON and SSE, idempotency."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
import unittest
import uuid

import httpx
import httpx_sse
import invariants
import server
import sseclient
from client import Connection, ask, events_of, origin_json, request, results

SEED = 20261123


class Streams(unittest.TestCase):
    def setUp(self):
        self.server, self.origin = server.shared()
        self.random = random.Random(SEED)

    def pages(self, count, **query):
        return [self.origin.page(n, **{"size": 3000 + n % 5000, **query}) for n in range(count)]

    def begin(self, body, target="/crawl/stream", fields=(), of=None):
        """A connection behind the head of its answer, and the head."""
        connection = Connection((of or self.server).address)
        connection.send(request("POST", target, body, fields))
        return connection, connection.read_head()

    def events(self, stream_id, after=None, fields=(), of=None):
        """The rest of a stream, to its end."""
        target = f"/streams/{stream_id}/events" + ("" if after is None else f"?after={after}")
        with Connection((of or self.server).address) as connection:
            connection.send(request("GET", target, fields=fields))
            head = connection.read_head()
            self.assertEqual(head.status, 200, head)
            return [json.loads(line) for line in connection.read_lines(head)]

    def state(self, stream_id, of=None):
        response = ask(of or self.server, "GET", f"/streams/{stream_id}")
        self.assertEqual(response.status, 200, response)
        return response.json()


class Resume(Streams):
    def read_some(self, connection, head, count):
        events = []
        if count:
            for line in connection.read_lines(head):
                events.append(json.loads(line))
                if len(events) >= count:
                    break
        return events

    def test_cut_anywhere_and_nothing_is_missing(self):
        for turn in range(6):
            with self.subTest(turn):
                urls = self.pages(60)
                connection, head = self.begin({"urls": urls, "options": {"concurrency": 8, "progress_ms": 20}})
                stream_id, events = head.field("x-stream-id"), []
                with connection:
                    events += self.read_some(connection, head, self.random.randrange(30))
                for _ in range(3):
                    durable = [event["seq"] for event in events if "seq" in event]
                    after = f"?after={durable[-1]}" if durable else ""
                    with Connection(self.server.address) as connection:
                        connection.send(request("GET", f"/streams/{stream_id}/events{after}"))
                        head = connection.read_head()
                        events += self.read_some(connection, head, self.random.randrange(20))
                durable = [event["seq"] for event in events if "seq" in event]
                events += self.events(stream_id, durable[-1] if durable else None)
                self.assertEqual(invariants.broken(events, len(urls)), [])

    def test_a_second_reader_gets_the_same(self):
        urls = self.pages(30, latency="20ms")
        connection, head = self.begin({"urls": urls, "options": {"concurrency": 4}})
        with connection:
            other = self.events(head.field("x-stream-id"))
            first = [json.loads(line) for line in connection.read_lines(head)]
        durable = [[event for event in events if "seq" in event] for events in (first, other)]
        self.assertEqual(durable[0], durable[1])
        self.assertEqual(invariants.broken(first, len(urls)), [])

    def test_a_stream_has_so_many_readers(self):
        urls = [self.origin.at("/stall", at="head", for_="1h")]
        connection, head = self.begin({"urls": urls, "options": {"timeout_ms": 60000}})
        target = f"/streams/{head.field('x-stream-id')}"
        with contextlib.ExitStack() as open_now:
            open_now.enter_context(connection)
            for _ in range(63):
                reader = open_now.enter_context(Connection(self.server.address))
                reader.send(request("GET", f"{target}/events"))
                self.assertEqual(reader.read_head().status, 200)
            refused = ask(self.server, "GET", f"{target}/events")
            self.assertEqual((refused.status, refused.json()["error"]["code"]), (429, "rate_limited"))
            self.assertEqual(refused.field("retry-after"), "1")
            self.assertEqual(ask(self.server, "GET", target).status, 200)
            reader.close()
            self.assertTrue(server.wait_until(lambda: len(self.state(head.field("x-stream-id"))["readers"]) < 64))
            with Connection(self.server.address) as another:
                another.send(request("GET", f"{target}/events"))
                self.assertEqual(another.read_head().status, 200)
            # However many read it, it can be ended.
            self.assertIn(ask(self.server, "DELETE", target).status, (200, 202))

    def test_what_fell_out_of_the_window_is_said_to_be_missing(self):
        with server.Server(replay_bytes_max=65536) as small:
            urls = self.pages(40, size=9000)
            connection, head = self.begin({"urls": urls}, of=small)
            with connection:
                first = [json.loads(line) for line in connection.read_lines(head)]
            self.assertEqual(invariants.broken(first, len(urls)), [])
            again = self.events(head.field("x-stream-id"), of=small)
            self.assertEqual(again[0]["type"], "gap")
            self.assertEqual((again[0]["from_seq"], again[0]["reason"]), (0, "window_exceeded"))
            seen = [event["seq"] for event in again]
            self.assertEqual(seen, list(range(again[0]["seq"], first[-1]["seq"] + 1)))
            state = self.state(head.field("x-stream-id"), of=small)
            self.assertLessEqual(state["replay"]["bytes"], 65536)
            self.assertEqual(state["replay"]["first_seq"], again[0]["seq"] + 1)

    def test_positions_that_make_no_sense(self):
        connection, head = self.begin({"urls": self.pages(1)})
        connection.close()
        stream_id = head.field("x-stream-id")
        for query in ("?after=-1", "?after=x", "?after=", "?after=1&b=2", "?after=%2B1"):
            response = ask(self.server, "GET", f"/streams/{stream_id}/events{query}")
            self.assertEqual(response.status, 400, query)
        for cursor in ("x", f"{stream_id}", f"{stream_id}.-1", f"{stream_id}.01", "01ARZ3NDEKTSV4RRFFQ69G5FAV.3"):
            fields = [f"Last-Event-ID: {cursor}"]
            response = ask(self.server, "GET", f"/streams/{stream_id}/events", fields=fields)
            self.assertEqual(response.status, 400, cursor)
            self.assertEqual(response.json()["error"]["details"][0]["field"], "Last-Event-ID")

    def test_unknown_and_expired(self):
        response = ask(self.server, "GET", "/streams/01ARZ3NDEKTSV4RRFFQ69G5FAV")
        self.assertEqual((response.status, response.json()["error"]["code"]), (404, "not_found"))
        self.assertEqual(ask(self.server, "GET", "/streams/short").status, 404)
        body = {"urls": self.pages(1), "options": {"resume_window_s": 0}}
        connection, head = self.begin(body)
        with connection:
            list(connection.read_lines(head))
        target = f"/streams/{head.field('x-stream-id')}"

        def expired():
            response = ask(self.server, "GET", target)
            return response.status == 404 and response.json()["error"]["code"] == "stream_expired"

        self.assertTrue(server.wait_until(expired))

    def test_an_unread_stream_ends_with_its_window(self):
        self.assertEqual(origin_json(self.origin, "/_wait?in_flight=0")[0], 200)
        origin_json(self.origin, "/_reset")
        urls = [self.origin.at("/stall", at="body", for_="1h", n=n) for n in range(4)]
        options = {"timeout_ms": 60000, "deadline_ms": 60000, "resume_window_s": 1}
        connection, head = self.begin({"urls": urls, "options": options})
        self.assertEqual(origin_json(self.origin, "/_wait?requests=4&timeout=10s")[0], 200)
        connection.close()
        self.assertEqual(self.state(head.field("x-stream-id"))["in_flight"], 4)
        status, seen = origin_json(self.origin, "/_wait?in_flight=0&timeout=15s")
        self.assertEqual(status, 200, seen)
        abandoned = b'forebay_streams_ended_total{end="abandoned"} 0'
        gone = lambda: abandoned not in ask(self.server, "GET", "/metrics").body
        self.assertTrue(server.wait_until(gone), "it was not cancelled: nobody came back for it")

    def test_nobody_reads_and_the_crawl_waits(self):
        """Backpressure holds while nobody is attached, too: the log stays within its bytes."""
        with server.Server(replay_bytes_max=262_144) as small:
            urls = self.pages(80, size=12000)
            connection, head = self.begin({"urls": urls, "options": {"concurrency": 8}}, of=small)
            connection.close()
            stream_id = head.field("x-stream-id")
            flushing = server.wait_until(lambda: self.state(stream_id, of=small)["state"] == "flushing", 30)
            self.assertTrue(flushing, self.state(stream_id, of=small))
            self.assertLessEqual(self.state(stream_id, of=small)["replay"]["bytes"], 262_144)
            events = self.events(stream_id, of=small)
            self.assertEqual(invariants.broken(events, len(urls)), [])


class State(Streams):
    def test_state_and_trace_of_a_running_stream(self):
        urls = [self.origin.page(1), self.origin.at("/stall", at="head", for_="1h")]
        connection, head = self.begin({"urls": urls, "options": {"timeout_ms": 60000}})
        stream_id = head.field("x-stream-id")
        with connection:
            server.wait_until(lambda: self.state(stream_id)["successful"] == 1)
            state = self.state(stream_id)
            self.assertEqual((state["state"], state["total_urls"], state["in_flight"]), ("active", 2, 1))
            self.assertEqual(state["last_seq"], 1)
            self.assertEqual(len(state["readers"]), 1)
            self.assertGreater(state["readers"][0]["ring"]["frames_limit"], 0)
            trace = ask(self.server, "GET", f"/streams/{stream_id}/trace").json()
            marks = [record["mark"] for record in trace["records"]]
            for mark in ("started", "attached", "head_sent", "url_started", "status", "result"):
                self.assertIn(mark, marks)
            times = [record["at_us"] for record in trace["records"]]
            self.assertEqual(times, sorted(times))
            gone = ask(self.server, "DELETE", f"/streams/{stream_id}")
            self.assertEqual(gone.status, 200, gone)

    def test_head_and_methods(self):
        connection, head = self.begin({"urls": self.pages(1)})
        connection.close()
        target = f"/streams/{head.field('x-stream-id')}"
        self.assertEqual(ask(self.server, "HEAD", target).status, 200)
        response = ask(self.server, "POST", target)
        self.assertEqual(response.status, 405)
        self.assertEqual(response.field("allow"), "GET, HEAD, DELETE, OPTIONS")

    def test_delete_answers_when_nothing_is_left(self):
        for at in ("head", "body"):
            self.assertEqual(origin_json(self.origin, "/_wait?in_flight=0")[0], 200)
            origin_json(self.origin, "/_reset")
            urls = [self.origin.at("/stall", at=at, for_="1h", n=n) for n in range(8)]
            connection, head = self.begin({"urls": urls, "options": {"timeout_ms": 60000, "concurrency": 8}})
            stream_id = head.field("x-stream-id")
            with connection:
                self.assertEqual(origin_json(self.origin, "/_wait?requests=8&timeout=10s")[0], 200)
                response = ask(self.server, "DELETE", f"/streams/{stream_id}")
                self.assertEqual(response.status, 200, response)
                state = response.json()
                self.assertEqual((state["state"], state["cancelled"], state["in_flight"]), ("closed", 8, 0))
                events = [json.loads(line) for line in connection.read_lines(head)]
            self.assertEqual(invariants.broken(events, 8), [])
            self.assertEqual(events[-1]["status"], "cancelled")
            status, seen = origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
            self.assertEqual(status, 200, seen)
            # Again: it is over already, and that is no error.
            self.assertEqual(ask(self.server, "DELETE", f"/streams/{stream_id}").status, 200)
        latency = ask(self.server, "GET", "/latency").json()
        self.assertIn("cancel_quiesce", json.dumps(latency))


class Idempotency(Streams):
    def test_the_same_key_finds_the_same_stream(self):
        key = [f"Idempotency-Key: {uuid.uuid4()}"]
        body = {"urls": self.pages(10, latency="30ms")}
        found = {}

        def one(n):
            connection, head = self.begin(body, fields=key)
            with connection:
                found[n] = (head.field("x-stream-id"), [json.loads(line) for line in connection.read_lines(head)])

        threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(len(found), 6)
        self.assertEqual(len({stream_id for stream_id, _ in found.values()}), 1)
        for _, events in found.values():
            self.assertEqual(invariants.broken(events, 10), [])

    def test_another_body_is_a_conflict(self):
        key = [f'Idempotency-Key: "{uuid.uuid4()}"']
        self.assertEqual(ask(self.server, "POST", "/crawl", {"urls": self.pages(1)}, key).status, 200)
        response = ask(self.server, "POST", "/crawl", {"urls": self.pages(2)}, key)
        self.assertEqual((response.status, response.json()["error"]["code"]), (409, "idempotency_conflict"))
        again = ask(self.server, "POST", "/crawl", {"urls": self.pages(1)}, key)
        self.assertEqual(again.status, 200)

    def test_keys_are_checked(self):
        for key in ("", "x" * 256, "caf\u00e9"):
            response = ask(self.server, "POST", "/crawl", {"urls": self.pages(1)}, [f"Idempotency-Key: {key}"])
            self.assertEqual(response.status, 400, key)


def raw_sse(connection, head):
    """The lines of an event stream as they are."""
    return b"\n".join(connection.read_lines(head)).decode()


class Sse(Streams):
    def target(self, urls, **options):
        pairs = [("url", url) for url in urls] + list(options.items())
        return "/crawl/sse?" + str(httpx.QueryParams(pairs))

    def test_ids_are_on_durable_events_only(self):
        urls = self.pages(5, latency="60ms")
        for method, target, body in (
            ("GET", self.target(urls, progress_ms=20, concurrency=1), None),
            ("POST", "/crawl/sse", {"urls": urls, "options": {"progress_ms": 20, "concurrency": 1}}),
        ):
            with self.subTest(method), Connection(self.server.address) as connection:
                connection.send(request(method, target, body))
                head = connection.read_head()
                self.assertEqual(head.field("content-type"), "text/event-stream")
                self.assertEqual(head.field("cache-control"), "no-cache, no-transform")
                self.assertEqual(head.field("x-accel-buffering"), "no")
                text = raw_sse(connection, head) + "\n"
                self.assertTrue(text.startswith("retry: 1000\n\n"))
                events = []
                for block in text.split("\n\n")[1:-1]:
                    fields = dict(line.split(": ", 1) for line in block.split("\n"))
                    event = json.loads(fields["data"])
                    events.append(event)
                    self.assertEqual(fields["event"], event["type"])
                    expected = f"{head.field('x-stream-id')}.{event['seq']}" if "seq" in event else None
                    self.assertEqual(fields.get("id"), expected)
                self.assertIn("progress", [event["type"] for event in events])
                self.assertEqual(invariants.broken(events, 5), [])

    def test_what_a_query_may_not_say(self):
        for query, code in (
            ("", "validation_error"), ("url=ftp://a/", "invalid_url"),
            (f"url={self.origin.page(1)}&colour=red", "unknown_field"),
            (f"url={self.origin.page(1)}&concurrency=0", "validation_error"),
        ):
            response = ask(self.server, "GET", f"/crawl/sse?{query}")
            self.assertEqual((response.status, response.json()["error"]["code"]), (400, code), query)
        self.assertEqual(ask(self.server, "HEAD", "/crawl/sse").status, 200)

    def test_a_finished_stream_is_not_asked_for_again(self):
        with Connection(self.server.address) as connection:
            connection.send(request("GET", self.target(self.pages(1))))
            head = connection.read_head()
            text = raw_sse(connection, head)
        last = [line[4:] for line in text.split("\n") if line.startswith("id: ")][-1]
        response = ask(self.server, "GET", self.target(self.pages(1)), fields=[f"Last-Event-ID: {last}"])
        self.assertEqual(response.status, 204)

    def test_two_client_libraries_through_a_cutting_proxy(self):
        for library in (self.with_httpx_sse, self.with_sseclient):
            with self.subTest(library.__name__), CuttingProxy(self.server.address, SEED) as proxy:
                urls = self.pages(80)
                events = library(proxy, self.target(urls, concurrency=8), len(urls))
                self.assertEqual(invariants.broken(events, len(urls)), [])
                self.assertGreater(proxy.cuts, 0)

    def with_httpx_sse(self, proxy, target, _total):
        events, last = [], None
        with httpx.Client(base_url=proxy.url, timeout=60) as http:
            while not events or events[-1]["type"] != "summary":
                headers = {"Last-Event-ID": last} if last else {}
                try:
                    with httpx_sse.connect_sse(http, "GET", target, headers=headers) as source:
                        for message in source.iter_sse():
                            if not message.data:  # it takes the lone `retry:` for an event
                                continue
                            events.append(json.loads(message.data))
                            last = message.id or last
                except httpx.TransportError:
                    pass
        return events

    def with_sseclient(self, proxy, target, _total):
        events, last = [], None
        while not events or events[-1]["type"] != "summary":
            connection = http.client.HTTPConnection(*proxy.address, timeout=60)
            try:
                connection.request("GET", target, headers={"Last-Event-ID": last} if last else {})
                for message in sseclient.SSEClient(Lines(connection.getresponse())).events():
                    events.append(json.loads(message.data))
                    last = message.id or last
            except (http.client.HTTPException, ConnectionError):
                pass
            finally:
                connection.close()
        return events


class Lines:
    """What sseclient wants: an iterator over bytes that can be closed."""

    def __init__(self, response):
        self.response = response

    def __iter__(self):
        while data := self.response.read1(65536):
            yield data

    def close(self):
        self.response.close()


class CuttingProxy:
    """Passes bytes on and ends each connection after a random number of them; one in four lives."""

    def __init__(self, target, seed):
        self.target, self.random, self.cuts = target, random.Random(seed), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.url = "http://%s:%d" % self.address
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            after = None if self.random.randrange(4) == 0 else self.random.randrange(200, 120_000)
            threading.Thread(target=self.serve, args=(client, after), daemon=True).start()

    def serve(self, client, after):
        upstream = socket.create_connection(self.target)
        threading.Thread(target=self.copy_up, args=(client, upstream), daemon=True).start()
        passed = 0
        try:
            while data := upstream.recv(4096):
                if after is not None and passed + len(data) > after:
                    client.sendall(data[: after - passed])
                    self.cuts += 1
                    break
                client.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for end in (client, upstream):
            # The other thread still reads from it: without this, closing would wait for that.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def copy_up(client, upstream):
        try:
            while data := client.recv(4096):
                upstream.sendall(data)
        except OSError:
            pass


class Slow(Streams):
    """True backpressure: a reader that takes nothing stops the fetching, and costs no other reader."""

    target = "/crawl/stream"

    def test_a_reader_that_stops_stops_the_origin_and_starts_it_again(self):
        with server.Server(replay_bytes_max=262_144, ring_bytes_max=65536) as small:
            origin_json(self.origin, "/_reset")
            urls = self.pages(200, size=12000)
            connection = Connection(small.address, receive_buffer=4096)
            connection.send(request("POST", self.target, {"urls": urls, "options": {"concurrency": 8}}))
            head = connection.read_head()

            def hits():
                return origin_json(self.origin, "/_stats?paths=0")[1]["requests"]

            stream_id = head.field("x-stream-id")
            flushing = server.wait_until(lambda: self.state(stream_id, of=small)["state"] == "flushing", 60)
            self.assertTrue(flushing)
            server.wait_until(lambda: self.state(stream_id, of=small)["in_flight"] == 0, 20)
            before = hits()
            time.sleep(0.5)
            self.assertEqual(hits(), before, "it goes on fetching for a reader that takes nothing")
            self.assertLess(before, 200)
            self.assertLessEqual(self.state(stream_id, of=small)["replay"]["bytes"], 262_144)
            with connection:
                events = list(events_of(connection, head))
            self.assertEqual(invariants.broken(events, 200), [])
            self.assertEqual(len(results(events)), 200)

    def test_a_stalled_client_is_cut_and_may_resume(self):
        urls = self.pages(150, size=60000)
        options = {"slow_client": "disconnect", "stall_timeout_ms": 400, "concurrency": 8}
        connection = Connection(self.server.address, receive_buffer=4096)
        connection.send(request("POST", self.target, {"urls": urls, "options": options}))
        head = connection.read_head()
        with connection:
            self.assertTrue(connection.cut_within(60), "a client that takes nothing was not cut")
        events = self.events(head.field("x-stream-id"))
        self.assertEqual(invariants.broken(events, len(urls)), [])


class SlowOverSse(Slow):
    target = "/crawl/sse"


if __name__ == "__main__":
    unittest.main()
