"""The harness against itself: a checker that can't fail proves nothing."""

import copy
import json
import socket
import threading
import unittest

import client
import invariants

CORES = (2,)  # it starts no server


def a_result(seq, index, total, error=None):
    document = {name: None for name in invariants.DOCUMENT} | {"word_count": 1} if error is None else None
    result = {
        "url": "http://a/", "final_url": "http://a/", "status": 200 if error is None else 0,
        "from_cache": False, "cache": "miss", "bytes": {"wire": 1, "body": 2}, "gate_decision": "approved" if error is None else "failed",
        "quality_score": 0.5, "processing_time_ms": 1, "timings_us": {"dns": 1},
        "document": document, "error": error, "cache_key": "",
    }
    progress = {"completed": seq, "total": total, "success_rate": 1.0}
    return {"type": "result", "seq": seq, "index": index, "result": result, "progress": progress}


ID = "01J9" + "0" * 22
TIME = "2026-01-15T10:30:00.000Z"


def a_stream():
    error = {"code": "dns_failed", "stage": "dns", "message": "m", "retryable": True}
    return [
        {"type": "metadata", "seq": 0, "total_urls": 2, "stream_id": ID, "request_id": "r", "timestamp": TIME,
         "stream_type": "crawl", "resume": {"window_s": 1, "max_bytes": 1}, "limits": {"deadline_ms": 1},
         "warnings": []},
        {"type": "progress", "operation_id": ID, "operation_type": "batch_crawl", "started_at": TIME,
         "current_phase": "processing", "progress_percentage": 0.0, "items_completed": 0, "items_total": 2,
         "estimated_completion": None, "current_item": None},
        a_result(1, 1, 2),
        {"type": "heartbeat", "timestamp": TIME},
        a_result(2, 0, 2, error),
        {"type": "summary", "seq": 3, "last_seq": 3, "total_urls": 2, "successful": 1, "failed": 1,
         "cancelled": 0, "from_cache": 0, "total_processing_time_ms": 1, "cache_hit_rate": 0.0,
         "status": "completed", "ttfr_ms": None},
    ]


class Invariants(unittest.TestCase):
    def test_a_good_stream_has_nothing_to_complain_about(self):
        self.assertEqual(invariants.broken(a_stream(), 2), [])

    def test_each_break_is_seen(self):
        breaks = {
            "a hole": lambda e: e[2].update(seq=2),
            "an ephemeral event with seq": lambda e: e[1].update(seq=1),
            "a durable one without": lambda e: e[2].pop("seq"),
            "an unknown type": lambda e: e[1].update(type="news"),
            "an index twice": lambda e: e[4].update(index=1),
            "an index too many": lambda e: e[4].update(index=2),
            "a lost result": lambda e: e.__delitem__(4),
            "no metadata": lambda e: e.__delitem__(0),
            "a wrong total": lambda e: e[0].update(total_urls=3),
            "no end": lambda e: e.pop(),
            "two ends": lambda e: e.append({**e[-1], "seq": 4, "last_seq": 4}),
            "an event after the end": lambda e: e.append({"type": "heartbeat"}),
            "a wrong sum": lambda e: e[-1].update(failed=2),
            "a wrong count": lambda e: e[-1].update(successful=2, failed=0),
            "a wrong last_seq": lambda e: e[-1].update(last_seq=2),
            "a wrong progress": lambda e: e[2]["progress"].update(completed=0),
            "an unknown code": lambda e: e[4]["result"]["error"].update(code="odd"),
            "an unknown stage": lambda e: e[4]["result"]["error"].update(stage="odd"),
            "an approved error": lambda e: e[4]["result"].update(gate_decision="approved"),
            "an unknown stage's time": lambda e: e[2]["result"]["timings_us"].update(odd=1),
            "a document with holes": lambda e: e[2]["result"]["document"].pop("links"),
            "a field that nobody described": lambda e: e[2]["result"].update(news=1),
            "a missing field": lambda e: e[-1].pop("ttfr_ms"),
            "a field of another type": lambda e: e[0].update(request_id=7),
            "a score out of range": lambda e: e[2]["result"].update(quality_score=1.5),
        }
        for name, spoil in breaks.items():
            with self.subTest(name):
                events = copy.deepcopy(a_stream())
                spoil(events)
                self.assertNotEqual(invariants.broken(events, 2), [])

    def test_a_gap_covers_what_it_says(self):
        events = a_stream()
        events[2:5] = [{"type": "gap", "seq": 3, "from_seq": 1, "to_seq": 2, "reason": "r"}]
        self.assertEqual(list(invariants._sequence(events[:3])), [])
        events[2]["from_seq"] = 2
        self.assertNotEqual(list(invariants._sequence(events[:3])), [])


class Stub:
    """Answers every connection with the same bytes."""

    def __init__(self, *pieces):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=self._serve, args=(pieces,), daemon=True)
        self.thread.start()

    def _serve(self, pieces):
        connection, _ = self.listener.accept()
        with connection, self.listener:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)


class Client(unittest.TestCase):
    def read(self, *pieces, method="GET"):
        with client.Connection(Stub(*pieces).address) as connection:
            connection.send(client.request(method, "/"))
            return connection.read_response(method)

    def test_framings(self):
        head = b"HTTP/1.1 200 OK\r\n"
        self.assertEqual(self.read(head + b"Content-Length: 3\r\n\r\nabcd").body, b"abc")
        self.assertEqual(self.read(head + b"\r\nab", b"c").body, b"abc")
        chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r", b"\n1\r\nc\r\n0\r\n\r\n"
        self.assertEqual(self.read(head + chunked[0], chunked[1]).body, b"abc")
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        self.assertEqual(self.read(interim + head + b"Content-Length: 0\r\n\r\n").status, 200)
        self.assertEqual(self.read(head + b"Content-Length: 9\r\n\r\n", method="HEAD").body, b"")

    def test_what_is_no_http_is_refused(self):
        head = b"HTTP/1.1 200 OK\r\n"
        for bad in (
            b"HTTP/1.0 200 OK\r\n\r\n",
            head + b"A : b\r\n\r\n",
            head + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            head + b"Content-Length: 3\r\n\r\nab",
            head + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        ):
            with self.subTest(bad), self.assertRaises(client.ProtocolError):
                self.read(bad)

    def test_streams_are_read_by_line_and_refusals_raise(self):
        body = b"".join(json.dumps(event).encode() + b"\n" for event in a_stream())
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        _, events = client.stream(Stub(head + body[:50], body[50:]), ["http://a/"])
        self.assertEqual(events, a_stream())
        short = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        with self.assertRaises(client.ProtocolError):
            client.stream(Stub(short), [])
        with self.assertRaises(AssertionError):
            client.stream(Stub(b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n{}"), [])
