"""`GET /crawl/ws`: the ops of API section 4, and section 3's invariants over WebSocket."""

import json
import random
import struct
import threading
import time
import unittest

import invariants
import server
from client import Connection, ask, origin_json, request
from test_stream import kinds
from ws import DURABLE, Raw, Socket, frame, handshake


class Sockets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.origin = server.shared()

    def socket(self, **options):
        return Socket(self.server, **options)

    def pages(self, count, first=0, **query):
        return [self.origin.page(first + n, **query) for n in range(count)]

    def holds(self, events, total):
        self.assertEqual(invariants.broken(events, total), [])
        return events

    def stalled(self, n=0):
        return self.origin.at("/stall", at="head", for_="1h", n=n)

    def refused(self, event, code="bad_message"):
        self.assertEqual(event["type"], "error", event)
        self.assertNotIn("seq", event)
        self.assertEqual(event["error"]["code"], code, event)
        self.assertTrue(event["error"]["message"])
        self.assertIsInstance(event["error"]["retryable"], bool)
        return event


class Handshake(Sockets):
    def test_it_is_upgraded_on_both_paths(self):
        for path in ("/crawl/ws", "/v1/crawl/ws"):
            headers = {"X-Request-ID": "req-9"}
            with self.socket(path=path, additional_headers=headers) as socket:
                self.assertEqual(socket.connection.subprotocol, "crawl.v1")
                head = socket.connection.response.headers
                self.assertEqual(head["X-Request-ID"], "req-9")
                self.assertIn("permessage-deflate", head["Sec-WebSocket-Extensions"])
                socket.crawl("a", self.pages(1))
                self.assertEqual(socket.stream("a")[0]["request_id"], "req-9")

    def test_a_client_without_subprotocol_is_taken(self):
        with self.socket(subprotocols=None) as socket:
            self.assertIsNone(socket.connection.subprotocol)
            socket.op("ping")
            self.assertEqual(socket.event()["type"], "pong")

    def test_refusals_are_answers_and_the_connection_goes_on(self):
        good = handshake()
        no_upgrade = request("GET", "/crawl/ws")
        cases = [
            (no_upgrade, 426, "upgrade_required"),
            (good.replace(b"Version: 13", b"Version: 8"), 426, "upgrade_required"),
            (good.replace(b"Sec-WebSocket-Version: 13\r\n", b""), 426, "upgrade_required"),
            (good.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: x"), 400, "bad_request"),
            (good.replace(b"Upgrade: websocket", b"Upgrade: h2c"), 426, "upgrade_required"),
            (good[:-2] + b"Content-Length: 1\r\n\r\nx", 400, "bad_request"),
            (good[:-2] + b"Sec-WebSocket-Extensions: =\r\n\r\n", 400, "bad_request"),
            (request("POST", "/crawl/ws", {}), 405, "method_not_allowed"),
        ]
        with Connection(self.server.address) as connection:
            for sent, status, code in cases:
                with self.subTest(sent):
                    connection.send(sent)
                    answer = connection.read_response()
                    self.assertEqual((answer.status, answer.json()["error"]["code"]), (status, code))
                    if status == 426:
                        self.assertEqual(answer.field("upgrade"), "websocket")
                        self.assertEqual(answer.field("sec-websocket-version"), "13")
                        self.assertIn("upgrade", answer.field("connection"))
            connection.send(request("HEAD", "/crawl/ws"))
            self.assertEqual(connection.read_response("HEAD").status, 426)
            connection.send(request("OPTIONS", "/crawl/ws"))
            self.assertEqual(connection.read_response().field("allow"), "GET, HEAD, OPTIONS")

    def test_frames_glued_to_the_handshake_count(self):
        op = {"op": "crawl", "id": "a", "data": {"urls": self.pages(3)}}
        with Raw(self.server, glued=frame(op) + frame({"op": "ping", "id": "p"})) as raw:
            events = [raw.event()]
            while events[-1]["type"] != "summary":
                events.append(raw.event())
        self.assertIn("pong", [event["type"] for event in events])
        mine = [event for event in events if event["type"] != "pong"]
        self.assertEqual({event.pop("id") for event in mine}, {"a"})
        self.holds(mine, 3)

    def test_an_op_may_come_in_any_pieces(self):
        op = b'{"op":"ping","id":"p"}'
        pieces = frame(op[:5], 0x01) + frame(b"x", 0x89) + frame(op[5:9], 0x00) + frame(op[9:], 0x80)
        with Raw(self.server) as raw:
            raw.connection.drip(pieces)
            # The pong of the protocol may come before or behind our own.
            frames = dict(raw.read() for _ in range(2))
        self.assertEqual(frames[0xA], b"x")
        self.assertEqual(json.loads(frames[1])["type"], "pong")


class Crawl(Sockets):
    def one(self, **options):
        mixed = kinds(self.origin)
        with self.socket(**options) as socket:
            socket.crawl("a", [url for url, _ in mixed], timeout_ms=3000)
            return self.holds(socket.stream("a"), len(mixed))

    def test_a_stream_compressed(self):
        self.one()

    def test_a_stream_as_it_is(self):
        self.one(compression=None)

    def test_every_event_bears_the_clients_id_whatever_it_is(self):
        for name in ("a", 'q"\\\n\u00e9\u4e2d', "x" * 128):
            with self.socket() as socket:
                socket.crawl(name, self.pages(2))
                self.holds(socket.stream(name), 2)
                self.assertEqual(set(socket.kept), {name})

    def test_many_streams_on_one_socket(self):
        with self.socket() as socket:
            for n in range(8):
                socket.crawl(f"s{n}", self.pages(20, 100 * n, size=3000 + 1000 * n), concurrency=4)
            for n in range(8):
                self.holds(socket.stream(f"s{n}"), 20)
            # The name is free again once the stream has ended.
            socket.crawl("s0", self.pages(1))
            self.holds(socket.stream("s0"), 1)

    def test_order_of_input(self):
        with self.socket() as socket:
            slow = self.origin.page(0, latency="300ms")
            socket.crawl("a", [slow, *self.pages(6, 1)], order="input")
            events = self.holds(socket.stream("a"), 7)
            indices = [event["index"] for event in events if event["type"] == "result"]
            self.assertEqual(indices, list(range(7)))

    @unittest.skipIf(server.QUICK, "takes a while")
    def test_1000(self):
        with self.socket(compression=None) as socket:
            socket.crawl("a", self.pages(1000, size=4000), concurrency=64)
            self.holds(socket.stream("a"), 1000)

    def test_large_documents_do_not_keep_small_ones_waiting(self):
        with self.socket(compression=None) as socket:
            socket.crawl("large", self.pages(12, size="900k"), concurrency=4, timeout_ms=60000)
            large = socket.until("large", "result")
            socket.crawl("small", self.pages(5, 50, size=1500))
            self.holds(socket.stream("small"), 5)
            self.assertNotIn("summary", [event["type"] for event in socket.kept["large"]])
            self.holds(large + socket.stream("large"), 12)


class Ops(Sockets):
    def test_cancel_ends_the_stream_and_its_work(self):
        origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
        origin_json(self.origin, "/_reset")
        with self.socket() as socket:
            socket.crawl("a", [self.stalled(n) for n in range(6)], timeout_ms=60000, concurrency=4)
            self.assertEqual(origin_json(self.origin, "/_wait?requests=4&timeout=10s")[0], 200)
            socket.op("cancel", id="a")
            events = self.holds(socket.stream("a"), 6)
            self.assertEqual((events[-1]["status"], events[-1]["cancelled"]), ("cancelled", 6))
            self.assertEqual(origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")[0], 200)
            self.refused_op(socket, "cancel", id="a")

    def refused_op(self, socket, op, code="bad_message", **fields):
        socket.op(op, **fields)
        return self.refused(socket.next(fields.get("id")), code)

    def test_cancel_without_credit_still_ends(self):
        with self.socket() as socket:
            socket.crawl("a", self.pages(10), credit=0)
            events = socket.until("a", "metadata")
            socket.op("cancel", id="a")
            self.holds(events + socket.stream("a"), 10)

    def test_add_makes_the_stream_longer(self):
        with self.socket() as socket:
            socket.crawl("a", [self.origin.page(0, latency="1500ms"), *self.pages(2, 1)])
            socket.until("a", "result")
            socket.op("add", id="a", urls=self.pages(3, 10))
            socket.op("add", id="a", urls=self.pages(1, 20))
            events = socket.stream("a")
        added = [event for event in events if event["type"] == "added"]
        self.assertEqual([(e["index"], e["count"], e["total"]) for e in added], [(3, 3, 6), (6, 1, 7)])
        urls = {e["index"]: e["result"]["url"] for e in events if e["type"] == "result"}
        self.assertEqual(urls[3], self.origin.page(10))
        self.assertEqual(urls[6], self.origin.page(20))
        summary = events[-1]
        self.assertEqual((summary["total_urls"], summary["successful"]), (7, 7))

    def test_add_keeps_the_limits(self):
        with self.socket() as socket:
            socket.crawl("a", [self.stalled()], timeout_ms=60000)
            socket.until("a", "metadata")
            many = self.pages(server.URLS_MAX)
            event = self.refused_op(socket, "add", id="a", urls=many)
            self.assertEqual(event["error"]["cause"], "too_many_urls")
            event = self.refused_op(socket, "add", id="a", urls=["ftp://a/"])
            self.assertEqual(event["error"]["cause"], "invalid_url")
            self.refused_op(socket, "add", id="a", urls=[])
            socket.op("cancel", id="a")
            self.assertEqual(socket.stream("a")[-1]["total_urls"], 1)
            self.refused_op(socket, "add", id="a", urls=self.pages(1))

    def test_add_reaches_a_stream_of_another_core(self):
        """Every socket may be on another core than the stream."""
        with self.socket() as first:
            first.crawl("a", [self.origin.page(0, latency="2s")])
            stream_id = first.until("a", "metadata")[0]["stream_id"]
            for n in range(6):
                with self.socket() as other:
                    other.op("resume", stream_id=stream_id, id="b")
                    other.op("add", id="b", urls=self.pages(1, n + 1))
                    self.assertEqual(other.until("b", "added")[-1]["index"], n + 1)
            self.assertEqual(first.stream("a")[-1]["total_urls"], 7)

    def test_cancel_reaches_a_stream_of_another_core(self):
        for _ in range(4):
            with self.socket() as first, self.socket() as other:
                first.crawl("a", [self.stalled()], timeout_ms=60000)
                stream_id = first.until("a", "metadata")[0]["stream_id"]
                other.op("resume", stream_id=stream_id, id="b")
                other.op("cancel", id="b")
                self.assertEqual(other.stream("b")[-1]["status"], "cancelled")
                self.assertEqual(first.stream("a")[-1]["status"], "cancelled")

    def test_ack_frees_the_window_and_a_resume_before_it_gets_a_gap(self):
        with self.socket() as socket:
            socket.crawl("a", [*self.pages(6), self.stalled()], timeout_ms=60000)
            events = socket.results("a", 6)
            stream_id, last = events[0]["stream_id"], events[-1]["seq"]
            socket.op("ack", id="a", seq=4)
            socket.op("ping", id="p")
            socket.next("p")
            with self.socket() as other:
                other.op("resume", stream_id=stream_id, id="b")
                gap = other.next("b")
                self.assertEqual((gap["type"], gap["from_seq"], gap["to_seq"]), ("gap", 0, 3))
                self.assertEqual(gap["seq"], 4)
                self.assertEqual(other.until("b", "result")[-1]["seq"], 5)
                other.op("resume", stream_id=stream_id, id="c", after=last - 1)
                self.assertEqual(other.until("c", "result")[-1]["seq"], last)
            socket.op("cancel", id="a")
            socket.stream("a")

    def test_status_lists_the_streams(self):
        with self.socket() as socket:
            self.assertEqual(socket.status(), {})
            socket.crawl("a", [*self.pages(2), self.stalled()], timeout_ms=60000)
            socket.crawl("b", self.pages(20), credit=3)
            seen = {"a": socket.results("a", 2), "b": socket.results("b", 3)}
            streams = socket.status()
            a, b = streams["a"], streams["b"]
            self.assertEqual((a["state"], a["completed"], a["total"], a["credit"]), ("active", 2, 3, None))
            self.assertEqual((a["last_seq"], a["sent_seq"]), (2, 2))
            self.assertEqual((b["state"], b["total"], b["credit"], b["sent_seq"]), ("flushing", 20, 0, 3))
            for name in ("a", "b"):
                self.assertEqual(streams[name]["stream_id"], seen[name][0]["stream_id"])
                socket.op("cancel", id=name)
                socket.stream(name)

    def test_deepsearch_is_a_stream_like_the_others(self):
        with self.socket() as socket:
            socket.op("deepsearch", id="d", data={"query": "zxqvbnonexistentword", "limit": 3})
            events = socket.stream("d")
            kinds = [event["type"] for event in events if "seq" in event]
            self.assertEqual(kinds, ["metadata", "search", "summary"])

    def test_bad_messages_are_told_and_the_socket_stays_open(self):
        good = {"urls": self.pages(1)}
        bad = [
            (b"", None), (b"{", None), (b"[]", None), (b"nonsense", None), (b'"ping"', None),
            ({}, None), ({"op": 7}, None), ({"op": "dance", "id": "x"}, "x"),
            ({"op": "ping", "urls": []}, None), ({"op": "cancel"}, None),
            ({"op": "cancel", "id": 7}, None), ({"op": "cancel", "id": ""}, None),
            ({"op": "cancel", "id": "nobody"}, "nobody"), ({"op": "ack", "id": "a"}, "a"),
            ({"op": "ack", "id": "a", "seq": -1}, "a"), ({"op": "ack", "id": "a", "seq": "1"}, "a"),
            ({"op": "credit", "id": "nobody", "n": 1}, "nobody"),
            ({"op": "credit", "id": "a", "n": 1e9}, "a"),
            ({"op": "crawl", "data": good}, None), ({"op": "crawl", "id": "x"}, "x"),
            ({"op": "crawl", "id": "x", "data": {"urls": []}}, "x"),
            ({"op": "crawl", "id": "x", "data": {"urls": ["nope"]}}, "x"),
            ({"op": "crawl", "id": "x", "data": {**good, "option": 1}}, "x"),
            ({"op": "crawl", "id": "x", "data": {**good, "options": {"order": "odd"}}}, "x"),
            ({"op": "crawl", "id": "x", "data": good, "extra": 1}, "x"),
            ({"op": "crawl", "id": "x" * 129, "data": good}, None),
            ({"op": "resume"}, None), ({"op": "resume", "stream_id": "1", "after": "x"}, None),
        ]
        with Raw(self.server) as raw:
            for message, name in bad:
                with self.subTest(message):
                    raw.send(message)
                    self.assertEqual(self.refused(raw.event()).get("id"), name)
            raw.send(b"{}", 0x82)
            self.refused(raw.event())
            raw.send({"op": "ping"})
            self.assertEqual(raw.event()["type"], "pong")

    def test_a_long_op_is_read_and_one_over_the_limit_of_bodies_is_not(self):
        with server.Server(request_body_bytes_max=200_000) as small, Raw(small) as raw:
            crawl = {"op": "crawl", "id": "a", "data": {"urls": self.pages(1), "options": {"progress_ms": 0}}}
            raw.send(json.dumps(crawl).encode() + b" " * 200_000)
            self.assertIn("200000", self.refused(raw.event())["error"]["message"])
            raw.send({"op": "dance", "id": "x" * 100_000})
            self.refused(raw.event())
            raw.send(json.dumps(crawl).encode() + b" " * 100_000)
            self.holds([raw.event() for _ in range(3)], 1)

    def test_a_message_that_does_not_end_is_given_up(self):
        with server.Server(body_timeout_ms=500) as hasty, Raw(hasty) as raw:
            raw.connection.send(frame(b'{"op":', 0x01))
            kind, payload = raw.read()
            self.assertEqual((kind, struct.unpack("!H", payload[:2])[0]), (8, 1008))

    def test_a_flood_of_ops_is_answered_in_order_whatever_the_client_reads(self):
        count = 20_000
        flood = b"".join(frame({"op": "status", "id": str(n)}) for n in range(count))
        with Raw(self.server, receive_buffer=8192) as raw:
            before = self.server.memory_bytes()
            sender = threading.Thread(target=lambda: raw.connection.send(flood))
            sender.start()
            time.sleep(1)
            self.assertLess(self.server.memory_bytes() - before, 16 << 20)
            for n in range(count):
                self.assertEqual(raw.event()["id"], str(n))
            sender.join(30)

    def test_a_name_in_use_is_refused_and_its_stream_goes_on(self):
        with self.socket() as socket:
            socket.crawl("a", [self.origin.page(0, latency="500ms")])
            socket.crawl("a", self.pages(1))
            events = socket.stream("a")
            while "seq" not in events[-1]:
                events += socket.stream("a")
            self.refused(next(event for event in events if "seq" not in event and event["type"] == "error"))
            events = [event for event in events if event["type"] != "error"]
            self.holds(events, 1)

    def test_a_socket_has_so_many_streams(self):
        with server.Server(ws_streams_max=2) as small, Socket(small) as socket:
            for name in ("a", "b", "c"):
                socket.crawl(name, [self.stalled()], timeout_ms=60000)
            self.refused(socket.next("c"), "rate_limited")

    def test_messages_are_counted(self):
        with self.socket() as socket:
            socket.crawl("a", self.pages(2))
            socket.stream("a")
            text = ask(self.server, "GET", "/metrics").body.decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        self.assertGreaterEqual(int(values["forebay_websockets_open"]), 1)
        self.assertGreaterEqual(int(values['forebay_websocket_messages_total{direction="in"}']), 1)
        self.assertGreaterEqual(int(values['forebay_websocket_messages_total{direction="out"}']), 4)
        self.assertEqual(values['forebay_messages_dropped_total{kind="durable"}'], "0")
        series = ask(self.server, "GET", "/latency").body.decode()
        for measure in ("ttfb", "ttfr", "gap", "whole"):
            self.assertIn(f"crawl.ws.{measure}", series)


class Credit(Sockets):
    def test_a_starved_stream_waits_and_its_neighbour_does_not(self):
        origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
        origin_json(self.origin, "/_reset")
        with self.socket() as socket:
            socket.crawl("starved", self.pages(60, 1000), credit=2, concurrency=4, progress_ms=0)
            socket.crawl("fed", self.pages(60, 2000), concurrency=4)
            self.holds(socket.stream("fed"), 60)
            while socket.status()["starved"]["sent_seq"] < 2:
                time.sleep(0.01)
            self.assertTrue(socket.quiet(0.3), "more than the credit")
            starved = socket.kept.pop("starved")
            self.assertEqual(sum(event["type"] == "result" for event in starved), 2)
            # The crawl waits, too: at most what was under way was fetched beyond the credit.
            paths = origin_json(self.origin, "/_stats?path=/page/1")[1]["paths"]
            fetched = [path for path in paths if path.startswith("/page/10")]
            self.assertLessEqual(len(fetched), 2 + 4 + 4)
            socket.op("credit", id="starved", n=10)
            starved += socket.results("starved", 10)
            self.assertTrue(socket.quiet(0.3), "more than the credit")
            socket.op("credit", id="starved", n=1000)
            starved += socket.kept.pop("starved", []) + socket.stream("starved")
            self.holds(starved, 60)

    def test_without_credit_other_events_flow(self):
        with self.socket() as socket:
            socket.crawl("a", self.pages(5), credit=0, progress_ms=20, concurrency=2)
            self.assertEqual(socket.next("a")["type"], "metadata")
            kinds_seen = {socket.next("a")["type"] for _ in range(5)}
            self.assertEqual(kinds_seen, {"progress"})
            socket.op("credit", id="a", n=5)
            events = socket.stream("a")
            self.assertEqual(sum(event["type"] == "result" for event in events), 5)


class Resume(Sockets):
    def test_cut_at_random_points_nothing_is_lost(self):
        seed = random.randrange(1 << 32)
        dice = random.Random(seed)
        with self.subTest(seed=seed):
            for compression in (None, "deflate"):
                self.cut_and_resume(dice, compression)

    def cut_and_resume(self, dice, compression):
        socket = self.socket(compression=compression)
        socket.crawl("a", self.pages(60, latency="20ms"), concurrency=6, progress_ms=50)
        events, cuts = [], 0
        stream_id, name = None, "a"
        while not events or events[-1]["type"] != "summary":
            for _ in range(dice.randrange(1, 25)):
                event = socket.next(name)
                stream_id = stream_id or event["stream_id"]
                if event["type"] in DURABLE:
                    events.append(event)
                if event["type"] == "summary":
                    break
            if events[-1]["type"] == "summary":
                break
            cuts += 1
            dice.choice([socket.cut, socket.connection.close])()
            socket = self.socket(compression=compression)
            # Also from before what was seen: by (stream_id, seq) it is the same.
            again = dice.randrange(3)
            after = events[-1]["seq"] - again
            while events and events[-1]["seq"] > max(after, -1):
                events.pop()
            name = f"r{cuts}"
            fields = {"after": after} if after >= 0 else {}
            socket.op("resume", stream_id=stream_id, id=name, **fields)
        socket.cut()
        self.assertGreater(cuts, 0)
        self.holds(events, 60)

    def test_a_finished_stream_can_be_read_again(self):
        with self.socket() as socket:
            socket.crawl("a", self.pages(3))
            events = self.holds(socket.stream("a"), 3)
            stream_id = events[0]["stream_id"]
            socket.op("resume", stream_id=stream_id)
            self.holds(socket.stream(stream_id), 3)
            socket.op("resume", stream_id=stream_id, after=events[-1]["seq"] - 1, id="end")
            self.assertEqual([event["type"] for event in socket.stream("end")], ["summary"])

    def test_two_readers_get_everything(self):
        with self.socket() as first, self.socket() as second:
            first.crawl("a", self.pages(10, latency="30ms"))
            stream_id = first.until("a", "metadata")[0]["stream_id"]
            second.op("resume", stream_id=stream_id, id="b")
            rest = first.stream("a")
            events = self.holds(second.stream("b"), 10)
            self.assertEqual(rest[-1], events[-1])

    def test_unknown_and_expired_streams(self):
        with self.socket() as socket:
            for stream_id in ("nonsense", "01J9ZZZZZZZZZZZZZZZZZZZZZZ"):
                socket.op("resume", stream_id=stream_id, id="x")
                self.refused(socket.next("x"), "not_found")
            socket.crawl("a", self.pages(1), resume_window_s=0)
            stream_id = socket.stream("a")[0]["stream_id"]

            def expired():
                socket.op("resume", stream_id=stream_id, id="x")
                event = socket.stream("x")[-1]
                return event["type"] == "error" and event

            self.refused(server.wait_until(expired), "stream_expired")

    def test_without_a_window_leaving_ends_the_work(self):
        for leave in (lambda socket: socket.cut(), lambda socket: socket.connection.close()):
            origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
            origin_json(self.origin, "/_reset")
            socket = self.socket()
            socket.crawl("a", [self.stalled(n) for n in range(4)], resume_window_s=0, timeout_ms=60000)
            self.assertEqual(origin_json(self.origin, "/_wait?requests=4&timeout=10s")[0], 200)
            leave(socket)
            self.assertEqual(origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")[0], 200)


class Slow(Sockets):
    def test_a_reader_that_stops_stops_the_crawl_and_loses_nothing(self):
        origin_json(self.origin, "/_wait?in_flight=0&timeout=10s")
        origin_json(self.origin, "/_reset")
        count = 30
        patient = 600_000  # however long it takes, no page is given up and no silence is too long
        options = {"concurrency": 4, "timeout_ms": patient, "stall_timeout_ms": patient, "deadline_ms": patient}
        op = {"op": "crawl", "id": "a", "data": {"urls": self.pages(count, size="900k"), "options": options}}
        small = server.Server(replay_bytes_max=2 << 20, ws_ping_interval_ms=patient)
        with small, Raw(small, receive_buffer=8192) as raw:
            raw.send(op)

            def still():
                before = origin_json(self.origin, "/_stats?paths=0")[1]["requests"]
                time.sleep(1)
                after = origin_json(self.origin, "/_stats?paths=0")[1]["requests"]
                return 0 < before == after and before

            fetched = server.wait_until(still, 60)
            self.assertTrue(0 < fetched < count, fetched)
            # Pings are answered although nothing is read.
            events = []
            while not events or events[-1]["type"] != "summary":
                events.append(raw.event())
                events[-1].pop("id")
            self.holds(events, count)
            self.assertEqual(events[-1]["successful"], count)

    def test_a_reader_that_stops_for_too_long_is_cut_and_may_resume(self):
        options = {"concurrency": 4, "timeout_ms": 60000, "stall_timeout_ms": 300}
        op = {"op": "crawl", "id": "a", "data": {"urls": self.pages(20, size="900k"), "options": options}}
        with Raw(self.server, receive_buffer=8192) as raw:
            raw.send(op)
            stream_id = raw.event()["stream_id"]
            self.assertTrue(raw.connection.cut_within(20))
        with self.socket() as socket:
            socket.op("resume", stream_id=stream_id, id="b")
            self.holds(socket.stream("b"), 20)
