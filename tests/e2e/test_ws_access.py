"""What a WebSocket may do: each of its ops is held to what a request is held to."""

import json
import signal
import time
import unittest

import websockets.exceptions
import websockets.sync.client

import server
from client import Connection, ask, request
from test_access import Folder, bearer, new_key

MIB = 1024 * 1024
REVOKED = 1008


class Sockets(Folder):
    def setUp(self):
        super().setUp()
        self.origin = server.shared()[1]
        self.key, self.entry = new_key("ci", "crawl,extract")

    def with_key(self, limits, *flags):
        self.file = self.path("keys.toml", self.entry + limits)
        return self.start("--auth-keys-file", self.file, *flags)

    def connect(self, running, key=None, fields=()):
        headers = dict(fields)
        if key:
            headers["X-API-Key"] = key
        url = f"ws://127.0.0.1:{running.port}/crawl/ws"
        socket = websockets.sync.client.connect(url, subprotocols=["crawl.v1"], additional_headers=headers)
        self.addCleanup(socket.close)
        return socket

    def op(self, socket, op, **fields):
        socket.send(json.dumps({"op": op, **fields}))

    def crawl(self, socket, name, *urls, **options):
        self.op(socket, "crawl", id=name, data={"urls": list(urls), "options": options})

    def read(self, socket, name, kind):
        """The next event of that kind for that id."""
        while True:
            event = json.loads(socket.recv(timeout=60))
            if event.get("id") == name and event["type"] == kind:
                return event

    def refused_op(self, event, code):
        self.assertEqual((event["type"], event["error"]["code"]), ("error", code), event)
        self.assertGreater(event["error"]["retry_after_ms"], 0)


class Rates(Sockets):
    def test_ops_take_of_the_keys_and_the_addresss_requests(self):
        for limits, flags in (("requests_per_min = 3\n", ()), ("", ("--limits-address-requests-per-min", "3"))):
            running = self.with_key(limits, *flags)
            socket = self.connect(running, self.key)  # the first of three
            self.crawl(socket, "a", self.origin.page(1, latency="60s"))
            self.read(socket, "a", "metadata")
            self.op(socket, "status", id="s")
            self.read(socket, "s", "status")
            self.crawl(socket, "b", self.origin.page(2))
            refused = self.read(socket, "b", "error")
            self.refused_op(refused, "rate_limited")
            self.assertEqual(refused["error"]["status"], 429)
            self.op(socket, "add", id="a", urls=[self.origin.page(3)])
            self.refused_op(self.read(socket, "a", "error"), "rate_limited")
            self.op(socket, "status", id="s")
            self.refused_op(self.read(socket, "s", "error"), "rate_limited")
            self.op(socket, "deepsearch", id="d", data={"query": "q"})
            self.refused_op(self.read(socket, "d", "error"), "rate_limited")
            self.op(socket, "resume", id="r", stream_id="0" * 26)
            self.refused_op(self.read(socket, "r", "error"), "rate_limited")
            socket.send("{")
            self.refused_op(json.loads(socket.recv(timeout=60)), "rate_limited")
            self.refused(ask(running, "GET", "/crawl/sse?url=http://h/", fields=[bearer(self.key)]), 429, "rate_limited")
            # What makes room is never refused.
            self.op(socket, "ping", id="p")
            self.read(socket, "p", "pong")
            self.op(socket, "cancel", id="a")
            self.read(socket, "a", "summary")

    def test_no_new_work_while_memory_is_short(self):
        first = self.start()
        limit = first.memory_bytes() + 48 * MIB
        first.kill()
        running = self.start("--limits-memory-bytes-max", str(limit))
        socket = self.connect(running)
        self.crawl(socket, "a", self.origin.page(1))
        self.read(socket, "a", "summary")
        bodies = []
        head = request("POST", "/extract", None, ["Content-Type: text/html", f"Content-Length: {16 * MIB}"])
        for _ in range(8):
            connection = Connection(running.address)
            self.addCleanup(connection.close)
            bodies.append(connection)
            try:
                connection.send(head + b"x" * (15 * MIB))
            except (BrokenPipeError, ConnectionResetError):
                break  # refused: there is more in use by now

        def refused():
            self.crawl(socket, "b", self.origin.page(2))
            while True:
                event = json.loads(socket.recv(timeout=60))
                if event["type"] in ("error", "summary"):
                    return event if event["type"] == "error" else None

        event = server.wait_until(refused, 30)
        self.assertTrue(event, f"{running.memory_bytes()} bytes, limit {limit}")
        self.refused_op(event, "overloaded")
        self.assertEqual(event["error"]["status"], 503)
        self.op(socket, "status", id="s")
        self.read(socket, "s", "status")
        for connection in bodies:
            connection.reset()

        def taken():
            self.crawl(socket, "c", self.origin.page(3))
            while True:
                event = json.loads(socket.recv(timeout=60))
                if event["type"] in ("error", "summary"):
                    return event["type"] == "summary"

        self.assertTrue(server.wait_until(taken, 30), f"{running.memory_bytes()} bytes, limit {limit}")


class Bytes(Sockets):
    """A key's bytes are charged while they are sent: its streams pause, and nothing new begins."""

    PER_MIN = 1_500_000  # 25 KB a second, and a minute's worth at once; a page has some 190 KB
    PAGES = 60

    def start_limited(self):
        flags = ("--buffer-bytes-max", "65536", "--stream-replay-bytes-max", "65536")
        return self.with_key(f"bytes_per_min = {self.PER_MIN}\n", *flags)

    def body(self):
        urls = [self.origin.page(n, size="100k") for n in range(self.PAGES)]
        options = {"formats": ["text", "markdown"], "robots": "ignore", "deadline_ms": 600_000, "timeout_ms": 120_000}
        return {"urls": urls, "options": options}

    def paused(self, running, began, got):
        """Whether the key may begin nothing now; then what was sent is what it had."""
        answer = ask(running, "POST", "/crawl", {"urls": [self.origin.page(1)]}, [bearer(self.key)])
        if answer.status == 200:
            return False
        self.refused(answer, 429, "rate_limited")
        self.assertIn("bytes", answer.json()["error"]["message"])
        earned = self.PER_MIN * (1 + (time.monotonic() - began) / 60)
        self.assertLess(got, earned + 8 * 65536)
        return True

    def test_a_stream_pauses_and_goes_on(self):
        running = self.start_limited()
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", self.body(), [bearer(self.key)]))
            connection.socket.settimeout(0.5)
            began, got, paused = time.monotonic(), 0, False
            while not paused:
                try:
                    self.assertTrue(connection.fill(), "ended before its bytes were used up")
                    got, connection.buffer = got + len(connection.buffer), b""
                except TimeoutError:
                    paused = self.paused(running, began, got)
            connection.socket.settimeout(60)
            self.assertTrue(connection.fill() and connection.buffer, "goes on once it is paid")

    def test_a_socket_pauses_and_goes_on(self):
        running = self.start_limited()
        socket = self.connect(running, self.key)
        self.op(socket, "crawl", id="a", data=self.body())
        began, got, paused = time.monotonic(), 0, False
        while not paused:
            try:
                got += len(socket.recv(timeout=0.5))
            except TimeoutError:
                paused = self.paused(running, began, got)
        self.crawl(socket, "b", self.origin.page(1))
        self.refused_op(self.read(socket, "b", "error"), "rate_limited")
        self.read(socket, "a", "result")


class Revoked(Sockets):
    def reload(self, running, text):
        self.path("keys.toml", text)
        running.child.send_signal(signal.SIGHUP)

    def closed(self, socket):
        with self.assertRaises(websockets.exceptions.ConnectionClosed) as end:
            while True:
                socket.recv(timeout=60)
        self.assertEqual(end.exception.rcvd.code, REVOKED, end.exception)

    def test_a_socket_ends_with_its_key(self):
        other, entry = new_key("other", "crawl")
        for change in (entry, self.entry.replace('"crawl", ', "") + entry):
            running = self.with_key(entry)
            idle, busy = self.connect(running, self.key), self.connect(running, self.key)
            stays = self.connect(running, other)
            self.crawl(busy, "a", self.origin.page(1, latency="60s"), progress_ms=0)
            self.read(busy, "a", "metadata")
            began = time.monotonic()
            self.reload(running, change)
            self.closed(idle)
            self.closed(busy)
            self.assertLess(time.monotonic() - began, 25, "only the next ping has closed them")
            self.crawl(stays, "b", self.origin.page(2))
            self.assertEqual(self.read(stays, "b", "summary")["successful"], 1)
            with self.assertRaises(websockets.exceptions.InvalidStatus):
                self.connect(running, self.key)

    def test_a_key_with_other_limits_has_them_on_open_sockets(self):
        running = self.with_key("")
        socket = self.connect(running, self.key)
        self.crawl(socket, "a", self.origin.page(1))
        self.read(socket, "a", "summary")
        self.reload(running, self.entry + "urls_per_min = 1\n")
        self.assertTrue(server.wait_until(lambda: "auth.keys_file" in running.output()))
        self.crawl(socket, "b", self.origin.page(1), self.origin.page(2))
        self.assertEqual(self.read(socket, "b", "error")["error"]["code"], "too_many_urls")

    def test_an_answer_that_is_being_sent_ends_with_its_key(self):
        _, entry = new_key("other", "crawl")
        running = self.with_key(entry, "--stream-heartbeat-ms", "200")
        with Connection(running.address) as connection:
            body = {"urls": [self.origin.page(1, latency="60s")], "options": {"progress_ms": 0}}
            connection.send(request("POST", "/crawl/stream", body, [bearer(self.key)]))
            connection.read_head()
            self.reload(running, entry)
            self.assertTrue(connection.cut_within(30), "still sent")


class AuditLog(Sockets):
    def test_each_op_has_its_line(self):
        path = self.path("audit")
        running = self.with_key("urls_per_min = 5\n", "--audit-file", path)
        socket = self.connect(running, self.key, {"X-Request-ID": "mine"})
        secret = self.origin.page(1) + "?token=T0KEN"
        self.crawl(socket, "a", secret, self.origin.page(2))
        stream = self.read(socket, "a", "metadata")["stream_id"]
        self.read(socket, "a", "summary")
        self.audit(path, 2)
        self.op(socket, "resume", id="r", stream_id=stream)
        self.read(socket, "r", "summary")
        self.audit(path, 3)
        self.crawl(socket, "b", self.origin.page(3, latency="60s"))
        other = self.read(socket, "b", "metadata")["stream_id"]
        self.op(socket, "add", id="b", urls=[self.origin.page(4, latency="60s") + "&key=S3CRET"])
        self.read(socket, "b", "added")
        self.crawl(socket, "c", *[self.origin.page(n) for n in range(4)])
        self.read(socket, "c", "error")
        self.op(socket, "cancel", id="b")
        self.read(socket, "b", "summary")
        self.audit(path, 7)
        self.crawl(socket, "d", "ftp://h/")
        self.read(socket, "d", "error")
        self.op(socket, "ping")
        self.crawl(socket, "e", self.origin.page(5, latency="60s"))
        self.read(socket, "e", "metadata")
        socket.close()
        lines = self.audit(path, 9)
        told = [(line.get("op"), line["outcome"], line["status"], line["urls"]) for line in lines]
        self.assertEqual(told, [
            (None, "ok", 101, 0),
            ("crawl", "ok", 200, 2),
            ("resume", "ok", 200, 0),
            ("add", "ok", 200, 1),
            ("crawl", "rate_limited", 429, 4),
            ("cancel", "ok", 200, 0),
            ("crawl", "ok", 200, 1),
            ("unknown", "bad_message", 400, 0),
            ("crawl", "aborted", 200, 1),
        ])
        for line in lines:
            self.assertEqual((line["key"], line["address"], line["target"]), ("ci", "127.0.0.1", "/crawl/ws"))
            self.assertEqual(line["request_id"], "mine")
        self.assertEqual([line["event"] for line in lines], ["request"] + ["op"] * 8)
        self.assertEqual([line["stream_id"] for line in lines[1:4]], [stream, stream, other])
        self.assertEqual(lines[5]["stream_id"], other)
        self.assertTrue(lines[1]["first_urls"][0].endswith("?token=***"))
        self.assertTrue(lines[1]["bytes"] > 500 and lines[3]["bytes"] > 10 and lines[1]["took_us"] > 0)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for word in ("T0KEN", "S3CRET"):
            self.assertNotIn(word, text)

    def test_a_job_says_who_is_told_of_its_end(self):
        path = self.path("audit")
        running = self.with_key("", "--audit-file", path)
        hook = {"url": "http://127.0.0.1:9/hook?token=T0KEN", "secret": "s" * 32}
        body = {"urls": [self.origin.page(1)], "webhook": hook}
        answer = ask(running, "POST", "/jobs", body, [bearer(self.key)])
        self.assertEqual(answer.status, 202, answer)
        line = self.audit(path, 1)[0]
        self.assertEqual((line["urls"], line["webhook"]), (1, "http://127.0.0.1:9/hook?token=***"))


if __name__ == "__main__":
    unittest.main()
