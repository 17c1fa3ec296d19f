"""Errors say what is wrong with the request or its page, and nothing of the inside: no path, no source
line, no library's name, no address that a name leads to."""

import json
import re
import unittest

import server
from client import Connection, ask, request
from test_access import Folder
from ws import frame, handshake

INSIDE = re.compile(
    r"\.rs\b|panick|unwrap|\bos error|\berrno|\bOs \{|(?<![\w:/])/(?:home|root|work|tmp|usr|etc|var|proc|opt|build)/"
    r"|0x[0-9a-f]{6}|\b(?:monoio|tokio|hyper|rustls|hickory|wasmtime|cranelift|serde|simd_json|simd-json|tantivy|figment)\b"
    r"|::\w+::|\bNone\b|\bSome\(",
    re.IGNORECASE,
)
LOOPBACK = re.compile(r"127\.0\.0\.1|::1")
# Ways to ask for what can't be had: method, target, body, fields.
JSON = ["Content-Type: application/json"]
HTML = ["Content-Type: text/html"]
WRONG = (
    ("GET", "/no", None, []),
    ("PUT", "/crawl", None, []),
    ("POST", "/crawl", b"{", JSON),
    ("POST", "/crawl", b"\xff\xfe", JSON),
    ("POST", "/crawl", b'{"urls":1}', JSON),
    ("POST", "/crawl", b"[" * 5000, JSON),
    ("POST", "/crawl", b'{"urls":["http://a.example"],"options":{"concurrency":"x"}}', JSON),
    ("POST", "/crawl", b'{"urls":["http://a.example"],"options":{"headers":{"X-Forwarded-For":"1.2.3.4"}}}', JSON),
    ("POST", "/crawl", b'{"urls":["http://\\u0000/"]}', JSON),
    ("POST", "/crawl", b'{"urls":["file:///etc/passwd"]}', JSON),
    ("POST", "/crawl", b'{"urls":["http://a.example"],"more":1}', JSON),
    ("POST", "/crawl", b"x", ["Content-Type: text/plain"]),
    ("POST", "/crawl", None, JSON),
    ("POST", "/deepsearch", b'{"query":""}', JSON),
    ("POST", "/extract?url=javascript:1", b"<p>", HTML),
    ("POST", "/extract", b'{"html":1}', JSON),
    ("POST", "/mcp", b'{"jsonrpc":"1.0"}', JSON),
    ("POST", "/mcp", b"{", JSON),
    ("POST", "/jobs", b'{"urls":["http://a.example"],"webhook":{"url":"x","secret":"y"}}', JSON),
    ("GET", "/jobs/none", None, []),
    ("GET", "/streams/none", None, []),
    ("GET", "/streams/00000000000000000000000000/events?after=x", None, []),
    ("GET", "/latency?window=x&format=y", None, []),
    ("GET", "/crawl/ws", None, []),
    ("GET", "/crawl/sse?url=http://a&nothing=1", None, []),
    ("POST", "/admin/reload", None, []),
)
OPS = ("{", "[]", '{"op":1}', '{"op":"no"}', '{"op":"crawl","id":"a"}', '{"op":"crawl","id":"a","data":{"urls":[1]}}',
       '{"op":"resume","stream_id":"x"}', '{"op":"add","id":"z","urls":["http://a/"]}', '{"op":"ack","id":"z","seq":-1}')


class Leaks(Folder):
    def shows_nothing(self, text, about):
        found = INSIDE.search(text)
        self.assertIsNone(found, f"{about}: {text[:600]}")

    def test_refused_requests(self):
        running, _ = server.shared()
        for method, target, body, fields in WRONG:
            answer = ask(running, method, target, body, fields)
            if target == "/admin/reload":
                self.assertIn(answer.status, (200, 422))
            else:
                self.assertIn(answer.status, range(400, 500), (method, target, body))
            self.shows_nothing(answer.body.decode(), (method, target, body))
            for name, value in answer.fields:
                self.assertNotIn(name, ("server", "x-powered-by", "via"))
                self.shows_nothing(value, (method, target, name))

    def test_refused_ops(self):
        running, _ = server.shared()
        with Connection(running.address) as connection:
            connection.send(handshake() + b"".join(frame(op.encode()) for op in OPS))
            self.assertEqual(connection.read_head().status, 101)
            for op in OPS:
                first, length = connection.read_exactly(2)
                if length == 126:
                    length = int.from_bytes(connection.read_exactly(2), "big")
                told = connection.read_exactly(length).decode()
                self.assertEqual((first & 15, json.loads(told)["type"]), (1, "error"), told)
                self.shows_nothing(told, op)

    def test_pages_that_fail(self):
        running, origin = server.shared()
        urls = [origin.malformed(name) for name in origin.names("malformed")]
        urls += [
            "http://127.0.0.1:1/", origin.url.replace("http:", "https:") + "/page/1", "http://no.such.name.invalid/",
            origin.redirect(30), origin.page(1, latency="5s"), origin.at("/stall", at="head"), origin.status(500),
            "http://10.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://localhost:22/",
        ]
        options = {"timeout_ms": 1500, "robots": "ignore", "concurrency": 32}
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
            lines = list(connection.read_lines(connection.read_head()))
        failed = 0
        for line in lines:
            event = json.loads(line)
            if event["type"] == "result" and event["result"]["error"]:
                failed += 1
                self.shows_nothing(json.dumps(event["result"]["error"]), event["result"]["url"])
        self.assertGreater(failed, 15)

    def test_what_a_name_leads_to_is_not_told(self):
        """Else who may only ask could learn what the operator's own names are, one by one."""
        running = server.Process([server.FOREBAY, "serve", "--listen", "127.0.0.1:0", "--hosts", "forebay"])
        self.addCleanup(running.kill)
        server.wait_until(lambda: ask(running, "GET", "/readyz").status == 200, 60)
        body = {"urls": ["http://localhost/", "http://inside.localhost/", "http://127.0.0.1/"]}
        results = ask(running, "POST", "/crawl", body).json()["results"]
        told = {item["result"]["url"]: item["result"]["error"] for item in results}
        self.assertEqual({error["code"] for error in told.values()}, {"blocked_egress"}, told)
        self.assertIn("127.0.0.1 is not globally routable (loopback", told["http://127.0.0.1/"]["message"])
        for name in ("localhost", "inside.localhost"):
            message = told[f"http://{name}/"]["message"]
            self.assertIsNone(LOOPBACK.search(message), message)
            self.assertIn(name, message)


if __name__ == "__main__":
    unittest.main()
