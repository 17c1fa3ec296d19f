"""HTTP/1.1 on the wire: what is refused and how, what is kept, what is cut (RFC 9112, RFC 9110)."""

import os
import re
import socket
import unittest

import client
import server
from client import Connection, ask, request

HOST = b"Host: forebay\r\n"
END = b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: forebay\r\n\r\n"
REFUSED = {400}


def get(fields, line=b"GET /livez HTTP/1.1\r\n", host=HOST):
    return line + host + fields + END


def post(fields, body=b"", line=b"POST /extract HTTP/1.1\r\n"):
    return line + HOST + b"Content-Type: text/html\r\n" + fields + END + body


def chunks(body):
    return post(b"Transfer-Encoding: chunked\r\n", body)


# Name, bytes, statuses that may answer. Each ends the connection: nothing behind it is a request.
VECTORS = [
    # RFC 9112 section 6: one framing, and one reading of it
    ("length and transfer-encoding", post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), REFUSED),
    ("transfer-encoding and length", post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), REFUSED),
    ("length twice, different", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), REFUSED),
    ("length twice, same", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), REFUSED),
    ("length list", post(b"Content-Length: 5, 5\r\n", b"hello"), REFUSED),
    ("length with plus", post(b"Content-Length: +5\r\n", b"hello"), REFUSED),
    ("length negative", post(b"Content-Length: -5\r\n", b"hello"), REFUSED),
    ("length hexadecimal", post(b"Content-Length: 0x5\r\n", b"hello"), REFUSED),
    ("length with a space inside", post(b"Content-Length: 5 5\r\n", b"hello"), REFUSED),
    ("length empty", post(b"Content-Length:\r\n", b"hello"), REFUSED),
    ("length with underscore", post(b"Content-Length: 1_0\r\n", b"hello"), REFUSED),
    ("length of 40 digits", post(b"Content-Length: " + b"9" * 40 + b"\r\n"), {400, 413}),
    ("chunked twice", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    ("chunked in two fields", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    ("chunked not last", post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), {400, 501}),
    ("another coding before", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), {400, 501}),
    ("identity", post(b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), {400, 501}),
    ("unknown coding", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), {400, 501}),
    ("chunked with parameter", post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), {400, 501}),
    ("chunked behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), {400, 501}),
    ("transfer-encoding empty", post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"), {400, 501}),
    ("transfer-encoding in 1.0", post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"POST /extract HTTP/1.0\r\n"), REFUSED),
    # RFC 9112 section 7.1: chunks
    ("chunk size of no digits", chunks(b"G\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk size empty", chunks(b"\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk size with 0x", chunks(b"0x1\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk size with sign", chunks(b"+1\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk size with a space before", chunks(b" 1\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk size over 64 bits", chunks(b"1" + b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n"), {400, 413}),
    ("chunk line with bare LF", chunks(b"1\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk without line end", chunks(b"1\r\nxy0\r\n\r\n"), REFUSED),
    ("chunk extension of a kilobyte", chunks(b"1;a=" + b"b" * 1024 + b"\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk extension with bare CR", chunks(b"1;a\rb\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("chunk extension with NUL", chunks(b"1;a=\x00\r\nx\r\n0\r\n\r\n"), REFUSED),
    ("trailers without end", chunks(b"0\r\n" + b"A: b\r\n" * 4096), {400, 431}),
    # RFC 9112 section 5: fields
    ("space before colon", get(b"A : b\r\n"), REFUSED),
    ("space before colon of a framing field", post(b"Content-Length : 5\r\n", b"hello"), REFUSED),
    ("tab before colon", get(b"A\t: b\r\n"), REFUSED),
    ("obs-fold", get(b"A: b\r\n c\r\n"), REFUSED),
    ("space before the first field", get(b"", host=b" " + HOST), REFUSED),
    ("no colon", get(b"A\r\n"), REFUSED),
    ("no name", get(b": b\r\n"), REFUSED),
    ("name is no token", get(b"A(b): c\r\n"), REFUSED),
    ("NUL in name", get(b"A\x00: b\r\n"), REFUSED),
    ("NUL in value", get(b"A: b\x00c\r\n"), REFUSED),
    ("control byte in value", get(b"A: b\x01c\r\n"), REFUSED),
    ("bare CR in value", get(b"A: b\rc\r\n"), REFUSED),
    ("bare CR ends a line", get(b"A: b\rTransfer-Encoding: chunked\r\n"), REFUSED),
    ("bare LF ends a line", get(b"A: b\nB: c\r\n"), REFUSED),
    # RFC 9112 section 3.2: Host
    ("no host", get(b"", host=b""), REFUSED),
    ("host twice", get(HOST), REFUSED),
    ("host with space", get(b"", host=b"Host: a b\r\n"), REFUSED),
    ("host with path", get(b"", host=b"Host: a/b\r\n"), REFUSED),
    ("host with user", get(b"", host=b"Host: a@b\r\n"), REFUSED),
    # RFC 9112 section 3: request lines
    ("two spaces", get(b"", b"GET  /livez HTTP/1.1\r\n"), REFUSED),
    ("tab as a space", get(b"", b"GET\t/livez HTTP/1.1\r\n"), REFUSED),
    ("empty lines without end", b"\r\n" * 4 + get(b""), REFUSED),
    ("space at the end", get(b"", b"GET /livez HTTP/1.1 \r\n"), REFUSED),
    ("space in the target", get(b"", b"GET /li vez HTTP/1.1\r\n"), REFUSED),
    ("fragment in the target", get(b"", b"GET /livez#a HTTP/1.1\r\n"), REFUSED),
    ("NUL in the target", get(b"", b"GET /livez\x00 HTTP/1.1\r\n"), REFUSED),
    ("target without slash", get(b"", b"GET livez HTTP/1.1\r\n"), REFUSED),
    ("asterisk with GET", get(b"", b"GET * HTTP/1.1\r\n"), REFUSED),
    ("version in small letters", get(b"", b"GET /livez http/1.1\r\n"), {400, 505}),
    ("version 2.0", get(b"", b"GET /livez HTTP/2.0\r\n"), {505}),
    ("version 1.2", get(b"", b"GET /livez HTTP/1.2\r\n"), {505}),
    ("version without minor", get(b"", b"GET /livez HTTP/1\r\n"), {400, 505}),
    ("HTTP/0.9", b"GET /livez\r\n", REFUSED),
    ("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    ("TLS hello", bytes.fromhex("16030100c8010000c40303") + bytes(200), REFUSED),
    ("method in small letters", get(b"", b"get /livez HTTP/1.1\r\n"), {400, 501}),
    ("method that is no token", get(b"", b"G(T /livez HTTP/1.1\r\n"), {400, 501}),
    ("unknown method", get(b"", b"BREW /livez HTTP/1.1\r\n"), {501}),
    ("CONNECT", get(b"", b"CONNECT forebay:80 HTTP/1.1\r\n"), {400, 501}),
    # RFC 9110: sizes and expectations
    ("target too long", get(b"", b"GET /" + b"a" * server.TARGET_BYTES_MAX + b" HTTP/1.1\r\n"), {414}),
    ("head too long", get(b"A: " + b"b" * server.HEAD_BYTES_MAX + b"\r\n"), {431}),
    ("too many fields", get(b"A: b\r\n" * (server.FIELDS_MAX + 1)), {431}),
    ("unknown expectation", post(b"Content-Length: 5\r\nExpect: magic\r\n", b"hello"), {417}),
]


class Refusals(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, _ = server.shared()

    def setUp(self):
        self.messages = set()

    def refused(self, name, data, statuses):
        with Connection(self.server.address) as connection:
            connection.send(data + SMUGGLED)
            response = connection.read_response()
            self.assertIn(response.status, statuses, name)
            self.assertEqual(response.field("connection"), "close", name)
            error = response.json()["error"]
            self.assertEqual(error["status"], response.status, name)
            self.messages.add(error["message"])
            self.assertTrue(error["code"] and error["message"], name)
            self.assertTrue(connection.ended(), f"{name}: something behind it was answered")

    def test_each_vector_gets_one_answer_and_the_end(self):
        for name, data, statuses in VECTORS:
            with self.subTest(name):
                self.refused(name, data, statuses)

    def test_every_row_of_the_table_has_its_vector(self):
        """What `Reject::TABLE` tells a client has been told to one here, each sentence."""
        for name, data, statuses in VECTORS:
            self.refused(name, data, statuses)
        with open(os.path.join(server.ROOT, "src/proto/h1/reject.rs"), encoding="utf-8") as source:
            table = source.read().split("TABLE", 1)[1].split("];", 1)[0]
        rows = set(re.findall(r'ApiCode::\w+,\s*"([^"]+)"', table))
        self.assertEqual(len(rows), len(re.findall(r"\(\s*Self::", table)))
        self.assertEqual(rows - self.messages, set())

    def test_the_same_behind_a_good_request(self):
        """A refusal in a pipeline leaves the answer before it whole."""
        for name, data, statuses in VECTORS:
            if name == "TLS hello" or name.startswith("preface"):
                continue  # only at a connection's beginning
            with self.subTest(name), Connection(self.server.address) as connection:
                connection.send(request("GET", "/livez") + data + SMUGGLED)
                self.assertEqual(connection.read_response().status, 200)
                self.assertIn(connection.read_response().status, statuses)
                self.assertTrue(connection.ended())

    def test_the_server_is_none_the_worse(self):
        self.assertEqual(ask(self.server, "GET", "/livez").status, 200)


class Routes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, _ = server.shared()

    def test_health(self):
        for path in ("/livez", "/readyz", "/healthz"):
            self.assertEqual(ask(self.server, "GET", path).status, 200, path)

    def test_unknown_paths_and_methods(self):
        missing = ask(self.server, "GET", "/nothing/here")
        self.assertEqual((missing.status, missing.json()["error"]["code"]), (404, "not_found"))
        for path in ("/crawl", "/crawl/stream", "/extract", "/v1/crawl"):
            response = ask(self.server, "GET", path)
            self.assertEqual(response.status, 405, path)
            self.assertIn("POST", response.field("allow"), path)
        self.assertIn("GET", ask(self.server, "DELETE", "/livez").field("allow"))

    def test_options(self):
        for target in ("*", "/livez", "/crawl"):
            response = ask(self.server, "OPTIONS", target)
            self.assertIn(response.status, (200, 204), target)
        self.assertIn("POST", ask(self.server, "OPTIONS", "/crawl").field("allow"))

    def test_head_has_the_fields_of_get_and_no_body(self):
        with Connection(self.server.address) as connection:
            connection.send(request("HEAD", "/livez") + request("GET", "/livez"))
            head, get_ = connection.read_response("HEAD"), connection.read_response("GET")
        self.assertEqual(head.status, 200)
        self.assertEqual(head.body, b"")
        self.assertEqual(head.field("content-length"), get_.field("content-length"))

    def test_bodies_need_a_length_and_a_type(self):
        crawl = b"POST /crawl HTTP/1.1\r\nHost: forebay\r\nContent-Type: application/json\r\n\r\n"
        with Connection(self.server.address) as connection:
            connection.send(crawl)
            self.assertEqual(connection.read_response().status, 411)
        fields = ["Content-Type: text/plain"]
        refused = ask(self.server, "POST", "/crawl", b"{}", fields)
        self.assertEqual((refused.status, refused.json()["error"]["code"]), (415, "invalid_content_type"))

    def test_request_ids_are_echoed_or_made(self):
        given = ask(self.server, "GET", "/livez", fields=["X-Request-ID: abc-123"])
        self.assertEqual(given.field("x-request-id"), "abc-123")
        bad = ask(self.server, "GET", "/livez", fields=["X-Request-ID: " + "a" * 4000])
        self.assertNotEqual(bad.field("x-request-id"), "a" * 4000)

    def test_metrics_are_text(self):
        metrics = ask(self.server, "GET", "/metrics")
        self.assertEqual(metrics.status, 200)
        self.assertTrue(metrics.field("content-type").startswith("text/plain"))
        self.assertIn(b"# TYPE ", metrics.body)

    def test_curl_agrees(self):
        self.assertTrue(client.curl("--fail", self.server.url + "/livez"))
        code = client.curl("--head", "--write-out", "%{http_code}", "--output", "/dev/null", self.server.url + "/no")
        self.assertEqual(code, b"404")


class Persistence(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, _ = server.shared()

    def test_pipelined_requests_are_answered_in_order(self):
        paths = ["/livez", "/no", "/readyz", "/livez", "/no/2"] * 4
        wire = b"".join(request("GET", path) for path in paths)
        for send in ("send", "drip"):
            with self.subTest(send), Connection(self.server.address) as connection:
                getattr(connection, send)(wire)
                statuses = [connection.read_response().status for _ in paths]
                self.assertEqual(statuses, [404 if "no" in path else 200 for path in paths])

    def test_bodies_in_a_pipeline_are_not_taken_for_requests(self):
        page = b"<title>t</title><p>" + SMUGGLED
        fields = ["Content-Type: text/html"]
        chunked = chunks(b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page))
        with Connection(self.server.address) as connection:
            wire = request("POST", "/extract", page, fields) + chunked + request("GET", "/livez")
            connection.send(wire)
            for expected in ("/extract", "/extract", "/livez"):
                self.assertEqual(connection.read_response().status, 200, expected)

    def test_who_closes(self):
        for version, field, kept in (
            ("HTTP/1.1", None, True),
            ("HTTP/1.1", "Connection: close", False),
            ("HTTP/1.1", "Connection: Close, foo", False),
            ("HTTP/1.0", None, False),
            ("HTTP/1.0", "Connection: keep-alive", True),
        ):
            with self.subTest(version=version, field=field), Connection(self.server.address) as connection:
                connection.send(request("GET", "/livez", fields=[field] if field else [], version=version))
                self.assertEqual(connection.read_response().status, 200)
                if kept:
                    connection.send(request("GET", "/livez"))
                    self.assertEqual(connection.read_response().status, 200)
                else:
                    self.assertTrue(connection.ended())

    def test_absolute_form_and_a_first_empty_line(self):
        for target in ("http://forebay/livez", "HTTP://forebay:80/livez"):
            self.assertEqual(ask(self.server, "GET", target).status, 200, target)
        with Connection(self.server.address) as connection:
            connection.send(b"\r\n" + request("GET", "/livez"))  # RFC 9112 section 2.2
            self.assertEqual(connection.read_response().status, 200)

    def test_a_half_closed_client_gets_its_answers(self):
        with Connection(self.server.address) as connection:
            connection.send(request("GET", "/livez") * 3)
            connection.finish()
            for _ in range(3):
                self.assertEqual(connection.read_response().status, 200)
            self.assertTrue(connection.ended())

    def test_continue(self):
        page = b"<title>t</title><p>hello there"
        head, body = request("POST", "/extract", page, ["Content-Type: text/html", "Expect: 100-continue"]).split(page)[0], page
        with Connection(self.server.address) as connection:
            connection.send(head)
            self.assertEqual(connection.read_head().status, 100)
            connection.send(body)
            self.assertEqual(connection.read_response().status, 200)

    def test_a_final_answer_instead_of_continue(self):
        with Connection(self.server.address) as connection:
            connection.send(post(b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n"))
            self.assertEqual(connection.read_head().status, 413)

    def test_lingering_close_lets_the_client_read_why(self):
        """The answer must survive the bytes that arrive after it (RFC 9112 section 9.6)."""
        with Connection(self.server.address) as connection:
            connection.send(post(b"Content-Length: 99999999999\r\n"))
            try:
                for _ in range(64):
                    connection.send(b"x" * 65536)
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assertEqual(connection.read_response().status, 413)


class Timeouts(unittest.TestCase):
    """Clients that hold a connection without using it are cut; the short settings are this
    server's own, and nothing is asserted about how soon."""

    @classmethod
    def setUpClass(cls):
        short = {"head_timeout_ms": 400, "body_timeout_ms": 400, "idle_timeout_ms": 400}
        cls.server = server.Server(write_stall_timeout_ms=400, **short)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def cut(self, data):
        with Connection(self.server.address) as connection:
            connection.send(data)
            response = connection.read_response()
            self.assertEqual((response.status, response.json()["error"]["code"]), (408, "request_timeout"))
            self.assertEqual(response.field("connection"), "close")
            self.assertTrue(connection.ended())

    def test_silence(self):
        """Who has begun nothing is told nothing."""
        with Connection(self.server.address) as connection:
            self.assertTrue(connection.ended())

    def test_idle_after_an_answer(self):
        with Connection(self.server.address) as connection:
            connection.send(request("GET", "/livez"))
            self.assertEqual(connection.read_response().status, 200)
            self.assertTrue(connection.ended())

    def test_half_a_head(self):
        self.cut(b"GET /livez HTTP/1.1\r\nHost: a\r\nA: ")

    def test_half_a_body(self):
        self.cut(post(b"Content-Length: 100\r\n", b"hello"))
        self.cut(chunks(b"5\r\nhel"))

    def drip(self, data):
        """Sends a byte now and then, until an answer comes; that one."""
        with Connection(self.server.address) as connection:
            connection.send(data)
            connection.socket.settimeout(0.05)
            for _ in range(1200):
                connection.send(b"b")
                try:
                    if not connection.fill() or connection.buffer:
                        break
                except TimeoutError:
                    pass
            else:
                self.fail("a minute of one byte at a time")
            connection.socket.settimeout(client.TIMEOUT_S)
            return connection.read_response().status

    def test_a_head_that_never_gets_done(self):
        """Progress alone doesn't keep a slow head alive."""
        self.assertEqual(self.drip(b"GET /livez HTTP/1.1\r\nHost: a\r\nA: "), 408)

    def test_a_body_that_never_gets_done(self):
        self.assertEqual(self.drip(post(b"Content-Length: 100000\r\n", b"hello")), 408)

    def test_a_client_that_never_reads(self):
        with Connection(self.server.address, receive_buffer=4096) as connection:
            connection.socket.setblocking(False)
            batch = request("GET", "/metrics") * 50
            for _ in range(10_000):
                try:
                    connection.socket.send(batch)
                except BlockingIOError:
                    break
                except (BrokenPipeError, ConnectionResetError):
                    return
            self.assertTrue(connection.cut_within(30), "still open")

    def test_connections_are_given_back(self):
        before = self.server.descriptors()
        opened = [Connection(self.server.address) for _ in range(50)]
        for connection in opened:
            self.assertTrue(connection.ended())
            connection.close()
        self.assertTrue(server.wait_until(lambda: self.server.descriptors() <= before + 2))

    def test_resets_at_any_point_cost_nothing(self):
        wire = request("GET", "/livez") + post(b"Content-Length: 30\r\n", b"<p>" * 10)
        for cut in range(0, len(wire), 7):
            connection = Connection(self.server.address)
            connection.send(wire[:cut])
            connection.reset()
        self.assertEqual(ask(self.server, "GET", "/livez").status, 200)


class ColdStart(unittest.TestCase):
    def test_a_port_in_use_is_told(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            command = [server.FOREBAY, "serve", "--listen", f"127.0.0.1:{port}"]
            with self.assertRaises(RuntimeError) as raised:
                server.Process(command)
            self.assertIn(str(port), str(raised.exception))
