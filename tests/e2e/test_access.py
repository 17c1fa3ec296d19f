"""Who may ask, and how much: keys and scopes, limits, proxies, browsers, the audit log."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import websockets.exceptions
import websockets.sync.client

import invariants
import server
from client import Connection, ask, curl, request
from ws import Socket, handshake

PAGE = b"<title>t</title><p>hello there, this is a page"
HTML = ["Content-Type: text/html"]
PROXY = "127.0.0.9"  # the one that the tests' servers trust
RETRY_S_MAX = 60


def new_key(name, scopes, limits=""):
    """A fresh key and its entry for the file."""
    command = [server.FOREBAY, "key", "new", "--name", name, "--scopes", scopes]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return done.stderr.decode().strip(), done.stdout.decode() + limits


def bearer(key):
    return f"Authorization: Bearer {key}"


class Folder(unittest.TestCase):
    """A folder for files, and servers that end with the test."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="forebay-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def start(self, *flags, **settings):
        running = server.Server(*flags, **settings)
        self.addCleanup(running.kill)
        return running

    def refused(self, response, status, code):
        self.assertEqual((response.status, response.json()["error"]["code"]), (status, code), response)
        return response

    def audit(self, path, count):
        """The lines of an audit log, once there are so many."""

        def lines():
            with open(path, encoding="utf-8") as file:
                return [json.loads(line) for line in file]

        self.assertTrue(server.wait_until(lambda: len(lines()) >= count), f"fewer lines than {count}")
        return lines()


class Keys(Folder):
    def setUp(self):
        super().setUp()
        self.crawl, crawl = new_key("crawler", "crawl")
        self.extract, extract = new_key("extractor", "extract")
        self.metrics, metrics = new_key("watcher", "metrics")
        self.admin, admin = new_key("boss", "admin,metrics")
        self.entries = [crawl, extract, metrics, admin]
        self.file = self.path("keys.toml", "\n".join(self.entries))

    def serve(self, *flags):
        return self.start("--auth-keys-file", self.file, *flags)

    def test_nothing_without_a_key_but_the_probes(self):
        running = self.serve()
        for path in ("/livez", "/readyz"):
            self.assertEqual(ask(running, "GET", path).status, 200, path)
        for method, path in (("POST", "/crawl"), ("POST", "/v1/crawl/stream"), ("POST", "/extract"),
                             ("GET", "/metrics"), ("GET", "/latency"), ("GET", "/healthz"), ("GET", "/no")):
            response = self.refused(ask(running, method, path), 401, "authentication_error")
            self.assertTrue(response.field("www-authenticate").startswith("Bearer"), path)
            self.assertTrue(response.field("x-request-id"))

    def test_a_key_comes_in_either_field(self):
        running = self.serve()
        for fields in ([bearer(self.extract)], [f"X-API-Key: {self.extract}"],
                       [bearer(self.extract), f"X-API-Key: {self.extract}"]):
            self.assertEqual(ask(running, "POST", "/extract", PAGE, [*HTML, *fields]).status, 200, fields)
        for fields in ([bearer(self.extract), f"X-API-Key: {self.crawl}"], [bearer(self.extract + "0")],
                       [f"Authorization: Basic {self.extract}"], ["X-API-Key:"], [bearer("fb_" + "0" * 64)]):
            response = ask(running, "POST", "/extract", PAGE, [*HTML, *fields])
            self.refused(response, 401, "authentication_error")
        self.assertEqual(curl("--oauth2-bearer", self.metrics, "--output", "/dev/null", "--write-out",
                              "%{http_code}", running.url + "/metrics"), b"200")

    def test_a_browsers_socket_offers_its_key_as_a_subprotocol(self):
        audit = self.path("audit")
        running = self.serve("--log-level", "trace", "--audit-file", audit)
        _, origin = server.shared()
        for protocols in (["crawl.v1", f"fb.key.{self.crawl}"], [f"fb.key.{self.crawl}", "crawl.v1"]):
            with Socket(running, subprotocols=protocols) as socket:
                self.assertEqual(socket.connection.subprotocol, "crawl.v1", "the key is never agreed on")
                self.assertNotIn("fb.key", str(socket.connection.response.headers))
                socket.crawl("a", [origin.page(1)])
                self.assertEqual(invariants.broken(socket.stream("a"), 1), [])
        offer = lambda *names: [f"Sec-WebSocket-Protocol: {', '.join(names)}"]
        for fields, status, code in [
            (offer("crawl.v1"), 401, "authentication_error"), (offer("crawl.v1", "fb.key."), 401, "authentication_error"),
            (offer("crawl.v1", f"fb.key.{self.crawl}0"), 401, "authentication_error"),
            (offer("crawl.v1", f"fb.key.{self.crawl}", f"fb.key.{self.extract}"), 401, "authentication_error"),
            (offer("crawl.v1", f"fb.key.{self.metrics}"), 403, "forbidden"),
        ]:
            with Connection(running.address) as connection:
                connection.send(handshake(fields=fields))
                self.refused(connection.read_response(), status, code)
        # Nowhere else is it looked for.
        fields = [*HTML, *offer(f"fb.key.{self.extract}")]
        self.refused(ask(running, "POST", "/extract", PAGE, fields), 401, "authentication_error")
        running.stop()
        with open(audit, encoding="utf-8") as file:
            told = running.output() + file.read()
        for key in (self.crawl, self.metrics, self.extract):
            self.assertNotIn(key, told)

    def test_a_key_is_good_for_its_scopes_only(self):
        running = self.serve()
        _, origin = server.shared()
        crawl = {"urls": [origin.page(1)]}
        asked = {
            "crawl": lambda key: ask(running, "POST", "/crawl", crawl, [bearer(key)]),
            "extract": lambda key: ask(running, "POST", "/extract", PAGE, [*HTML, bearer(key)]),
            "metrics": lambda key: ask(running, "GET", "/metrics", fields=[bearer(key)]),
            "latency": lambda key: ask(running, "GET", "/latency", fields=[bearer(key)]),
            "reset": lambda key: ask(running, "GET", "/latency?window=10s&reset", fields=[bearer(key)]),
        }
        allowed = {self.crawl: {"crawl"}, self.extract: {"extract"}, self.metrics: {"metrics", "latency"},
                   self.admin: {"metrics", "latency", "reset"}}
        for key, good in allowed.items():
            for what, send in asked.items():
                if what in good:
                    self.assertEqual(send(key).status, 200, what)
                else:
                    self.refused(send(key), 403, "forbidden")
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", crawl, [bearer(self.crawl)]))
            events = [json.loads(line) for line in connection.read_lines(connection.read_head())]
        self.assertEqual(invariants.broken(events, 1), [])

    def test_a_stream_is_visible_to_its_own_key_only(self):
        other, entry = new_key("other", "crawl")
        self.entries.append(entry)
        self.path("keys.toml", "\n".join(self.entries))
        running = self.serve()
        _, origin = server.shared()
        body = {"urls": [origin.page(1, latency="60s")]}
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", body, [bearer(self.crawl), "Idempotency-Key: k"]))
            stream = connection.read_head().field("x-stream-id")
            for path in (f"/streams/{stream}", f"/streams/{stream}/trace"):
                self.assertEqual(ask(running, "GET", path, fields=[bearer(self.crawl)]).status, 200, path)
                hidden = ask(running, "GET", path, fields=[bearer(other)])
                self.assertEqual(hidden.status, 404, path)
                self.refused(ask(running, "GET", path), 401, "authentication_error")
                self.refused(ask(running, "GET", path, fields=[bearer(self.metrics)]), 403, "forbidden")
            events = [bearer(other), f"Last-Event-ID: {stream}.0"]
            self.assertEqual(ask(running, "GET", f"/streams/{stream}/events", fields=events).status, 404)
            self.assertEqual(ask(running, "DELETE", f"/streams/{stream}", fields=[bearer(other)]).status, 404)
            # The same Idempotency-Key of another key is another one.
            with Connection(running.address) as second:
                fields = [bearer(other), "Idempotency-Key: k"]
                second.send(request("POST", "/crawl/stream", body, fields))
                self.assertNotEqual(second.read_head().field("x-stream-id"), stream)
            self.assertEqual(ask(running, "DELETE", f"/streams/{stream}", fields=[bearer(self.crawl)]).status, 200)

    def test_keys_are_read_again_on_sighup(self):
        running = self.serve()
        late, entry = new_key("late", "metrics")
        status = lambda key: ask(running, "GET", "/metrics", fields=[bearer(key)]).status
        self.assertEqual((status(late), status(self.metrics)), (401, 200))
        self.path("keys.toml", "[[key]]\nname = broken")
        running.child.send_signal(signal.SIGHUP)
        self.assertTrue(server.wait_until(lambda: "stay as they were" in running.output()))
        self.assertEqual((status(late), status(self.metrics)), (401, 200))
        self.path("keys.toml", "\n".join([*self.entries[:2], entry]))
        running.child.send_signal(signal.SIGHUP)
        self.assertTrue(server.wait_until(lambda: status(late) == 200))
        self.assertEqual(status(self.metrics), 401)

    def test_wrong_keys_are_limited_and_right_ones_are_not(self):
        running = self.serve("--auth-failures-per-min", "3")
        wrong = lambda: ask(running, "GET", "/metrics", fields=[bearer("fb_" + "1" * 64)])
        for _ in range(3):
            self.refused(wrong(), 401, "authentication_error")
        limited = self.refused(wrong(), 429, "rate_limited")
        self.assertIn(int(limited.field("retry-after")), range(1, 21))
        self.assertEqual(ask(running, "GET", "/metrics", fields=[bearer(self.metrics)]).status, 200)
        other = ask(running, "GET", "/metrics", fields=[bearer("nothing")], source="127.0.0.2")
        self.refused(other, 401, "authentication_error")

    def test_a_key_is_shown_once_and_stored_hashed(self):
        key, entry = new_key("ci", "crawl,extract")
        self.assertTrue(re.fullmatch(r"fb_[0-9a-f]{64}", key))
        self.assertNotIn(key, entry)
        self.assertNotIn(key[3:], entry)
        self.assertIn("sha256:", entry)
        for wrong in (["--name", "a b", "--scopes", "crawl"], ["--name", "a", "--scopes", "all"], ["--name", "a"]):
            done = subprocess.run([server.FOREBAY, "key", "new", *wrong], capture_output=True, check=False)
            self.assertEqual(done.returncode, 2, wrong)

    def test_an_open_server_on_a_public_address_does_not_start(self):
        for command in ("serve", "check"):
            done = subprocess.run([server.FOREBAY, command, "--listen", "0.0.0.0:0"], capture_output=True,
                                  check=False, timeout=60)
            self.assertEqual(done.returncode, 2, command)
            for hint in (b"auth.keys_file", b"auth.open", b"forebay key new"):
                self.assertIn(hint, done.stderr)
        for allowed in (["--auth-open", "true"], ["--auth-keys-file", self.file]):
            command = [server.FOREBAY, "check", "--listen", "0.0.0.0:0", *allowed]
            self.assertEqual(subprocess.run(command, capture_output=True, check=False).returncode, 0, allowed)

    def test_no_secret_reaches_the_log(self):
        audit = self.path("audit")
        running = self.start("--auth-keys-file", self.file, "--log-level", "trace", "--audit-file", audit)
        _, origin = server.shared()
        secrets = ["S3CRET-header", "S3CRET-cookie", "S3CRET-query", "S3CRET-token"]
        body = {"urls": [origin.page(1) + "?token=" + secrets[2]],
                "options": {"headers": {"Authorization": "Bearer " + secrets[0], "X-Custom": secrets[3]}}}
        fields = [bearer(self.crawl), "Cookie: a=" + secrets[1]]
        self.assertEqual(ask(running, "POST", "/crawl?password=" + secrets[2], body, fields).status, 200)
        ask(running, "GET", "/metrics?api_key=" + secrets[2], fields=[bearer("fb_" + "2" * 64)])
        self.audit(audit, 2)
        self.assertEqual(running.stop(), 0)
        with open(audit, encoding="utf-8") as file:
            told = running.output() + file.read()
        for secret in [*secrets, self.crawl, "2" * 64]:
            self.assertNotIn(secret, told)


class Limits(Folder):
    def limited(self, response, code="rate_limited", status=429):
        self.refused(response, status, code)
        retry = int(response.field("retry-after"))
        self.assertIn(retry, range(1, RETRY_S_MAX + 1))
        return retry

    def with_key(self, limits, *flags):
        key, entry = new_key("limited", "crawl,extract,metrics", limits)
        running = self.start("--auth-keys-file", self.path("keys.toml", entry), *flags)
        return running, [bearer(key)]

    def test_requests_of_an_address(self):
        running = self.start("--limits-address-requests-per-min", "30")
        seen = []
        while (response := ask(running, "GET", "/metrics")).status == 200 and len(seen) < 1000:
            self.assertEqual(response.field("ratelimit-policy"), '"address";q=30;w=60')
            seen.append(int(re.fullmatch(r'"address";r=(\d+);t=\d+', response.field("ratelimit")).group(1)))
        self.assertGreaterEqual(len(seen), 30)
        self.assertEqual(seen[0], 29)
        retry = self.limited(response)
        self.assertEqual(response.field("ratelimit"), f'"address";r=0;t={retry}')
        self.assertEqual(ask(running, "GET", "/livez").status, 200)
        self.assertEqual(ask(running, "GET", "/metrics", source="127.0.0.2").status, 200)
        time.sleep(retry)
        self.assertEqual(ask(running, "GET", "/metrics").status, 200)

    def test_requests_of_a_key_from_anywhere(self):
        running, fields = self.with_key("requests_per_min = 4\n")
        for n in range(4):
            response = ask(running, "GET", "/metrics", fields=fields, source=f"127.0.0.{n + 1}")
            self.assertEqual((response.status, response.field("ratelimit-policy")), (200, '"key";q=4;w=60'))
        self.limited(ask(running, "GET", "/metrics", fields=fields, source="127.0.0.8"))

    def test_urls_of_a_key(self):
        running, fields = self.with_key("urls_per_min = 3\n")
        _, origin = server.shared()
        crawl = lambda n: ask(running, "POST", "/crawl", {"urls": [origin.page(i) for i in range(n)]}, fields)
        self.refused(crawl(4), 400, "too_many_urls")
        self.assertEqual(crawl(2).status, 200)
        self.limited(crawl(2))
        self.assertEqual(crawl(1).status, 200)

    def test_streams_and_requests_at_a_time(self):
        for limit in ("streams = 1\n", "concurrency = 1\n"):
            running, fields = self.with_key(limit)
            _, origin = server.shared()
            slow = request("POST", "/crawl/stream", {"urls": [origin.page(1, latency="60s")], "options": {"resume_window_s": 0}}, fields)
            quick = {"urls": [origin.page(1)]}
            with Connection(running.address) as connection:
                connection.send(slow)
                connection.read_line()
                self.limited(ask(running, "POST", "/crawl", quick, fields))
            again = lambda: ask(running, "POST", "/crawl", quick, fields).status == 200
            self.assertTrue(server.wait_until(again), f"{limit}: a place was not given back")

    def test_a_websocket_is_held_to_its_keys_limits(self):
        running, fields = self.with_key("streams = 1\nurls_per_min = 3\nconnections = 1\n")
        _, origin = server.shared()
        headers = {"Authorization": fields[0].split(": ")[1]}
        url = f"ws://127.0.0.1:{running.port}/crawl/ws"
        with self.assertRaises(websockets.exceptions.InvalidStatus) as refused:
            websockets.sync.client.connect(url, subprotocols=["crawl.v1"])
        self.assertEqual(refused.exception.response.status_code, 401)
        with websockets.sync.client.connect(url, subprotocols=["crawl.v1"], additional_headers=headers) as socket:
            self.limited(ask(running, "GET", "/metrics", fields=fields))

            def crawl(name, count, **query):
                data = {"urls": [origin.page(n, **query) for n in range(count)], "options": {"resume_window_s": 0}}
                socket.send(json.dumps({"op": "crawl", "id": name, "data": data}))

            def read(name, kind):
                while True:
                    event = json.loads(socket.recv(timeout=60))
                    if event.get("id") == name and event["type"] == kind:
                        return event

            crawl("a", 1, latency="60s")
            read("a", "metadata")
            crawl("b", 1)
            self.assertEqual(read("b", "error")["error"]["code"], "rate_limited")
            socket.send(json.dumps({"op": "cancel", "id": "a"}))
            read("a", "summary")
            crawl("c", 4)
            self.assertEqual(read("c", "error")["error"]["code"], "too_many_urls")
            crawl("d", 2)
            self.assertEqual(read("d", "summary")["successful"], 2)
        again = lambda: ask(running, "GET", "/metrics", fields=fields).status == 200
        self.assertTrue(server.wait_until(again), "the connection's place was not given back")

    def test_connections_of_a_key(self):
        running, fields = self.with_key("connections = 1\n")
        with Connection(running.address) as first, Connection(running.address) as second:
            for _ in range(2):
                first.send(request("GET", "/metrics", fields=fields))
                self.assertEqual(first.read_response().status, 200)
            second.send(request("GET", "/metrics", fields=fields))
            self.limited(second.read_response())
            first.close()

            def again():
                second.send(request("GET", "/metrics", fields=fields))
                return second.read_response().status == 200

            self.assertTrue(server.wait_until(again))

    def test_bytes_of_a_key(self):
        running, fields = self.with_key("bytes_per_min = 100000\n")
        metrics = lambda: ask(running, "GET", "/metrics", fields=fields)
        statuses = [metrics().status]
        while statuses[-1] == 200 and len(statuses) < 1000:
            last = metrics()
            statuses.append(last.status)
        self.assertEqual(statuses[0], 200)
        self.limited(last)

    def test_connections_of_an_address(self):
        running = self.start("--limits-address-connections", "3")
        held = [Connection(running.address, source="127.0.0.2") for _ in range(3)]
        for connection in held:
            connection.send(request("GET", "/livez"))
            self.assertEqual(connection.read_response().status, 200)
        with Connection(running.address, source="127.0.0.2") as fourth:
            head = fourth.read_head()
            self.assertEqual((head.status, head.field("connection")), (429, "close"))
            self.assertTrue(head.field("retry-after"))
        self.assertEqual(ask(running, "GET", "/livez").status, 200)
        self.assertIn(b'forebay_connections_rejected_total{reason="per_address"} 1', ask(running, "GET", "/metrics").body)
        for connection in held:
            connection.close()
        again = lambda: ask(running, "GET", "/livez", source="127.0.0.2").status == 200
        self.assertTrue(server.wait_until(again))

    def test_connections_of_all(self):
        running = self.start("--connections-max", "3")
        held = []

        def connect():
            connection = Connection(running.address)
            self.addCleanup(connection.close)
            connection.send(request("GET", "/livez"))
            head = connection.read_head()
            return connection, head

        def fill():
            connection, head = connect()
            if head.status == 200:
                held.append(connection)
            return len(held) == 3

        self.assertTrue(server.wait_until(fill))
        late, head = connect()
        self.assertEqual((head.status, head.field("connection"), head.field("retry-after")), (503, "close", "1"))
        self.assertTrue(late.ended())
        for connection in held:
            connection.buffer = b""
            connection.send(request("GET", "/livez"))
            self.assertEqual(connection.read_head().status, 200, "who was there stays")
        held.pop().close()
        self.assertTrue(server.wait_until(lambda: connect()[1].status == 200), "the place was not given back")

    def test_requests_of_an_address_at_a_time(self):
        running = self.start("--limits-address-concurrency", "1")
        _, origin = server.shared()
        slow = {"urls": [origin.page(1, latency="60s")], "options": {"resume_window_s": 0}}
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", slow))
            connection.read_head()
            self.limited(ask(running, "GET", "/metrics"))
            self.assertEqual(ask(running, "GET", "/livez").status, 200)
            self.assertEqual(ask(running, "GET", "/metrics", source="127.0.0.2").status, 200)
        again = lambda: ask(running, "GET", "/metrics").status == 200
        self.assertTrue(server.wait_until(again), "its place was not given back")

    def test_no_new_work_while_memory_is_short(self):
        running = self.start("--limits-memory-bytes-max", "1")
        _, origin = server.shared()
        crawl = lambda: ask(running, "POST", "/crawl", {"urls": [origin.page(1)]})
        self.assertTrue(server.wait_until(lambda: crawl().status == 503))
        self.limited(crawl(), "overloaded", 503)
        self.assertEqual(ask(running, "GET", "/metrics").status, 200)


class Proxies(Folder):
    def setUp(self):
        super().setUp()
        self.log = self.path("audit")

    def addresses(self, count):
        return [line["address"] for line in self.audit(self.log, count)]

    def serve(self, *flags):
        return self.start("--trusted-proxies", PROXY, "--audit-file", self.log, *flags, head_timeout_ms=1000)

    def test_forwarded_addresses_count_from_trusted_proxies_only(self):
        running = self.serve()
        for source, fields in (
            (PROXY, ["X-Forwarded-For: 198.51.100.7"]),
            (PROXY, ["X-Forwarded-For: 1.2.3.4, 198.51.100.8"]),
            (PROXY, ["X-Forwarded-For: 1.2.3.4", f"X-Forwarded-For: 198.51.100.9, {PROXY}"]),
            (PROXY, ["Forwarded: for=1.2.3.4"]),
            (PROXY, ["X-Forwarded-For: nonsense"]),
            ("127.0.0.3", ["X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4"]),
        ):
            self.assertEqual(ask(running, "GET", "/metrics", fields=fields, source=source).status, 200)
        expected = ["198.51.100.7", "198.51.100.8", "198.51.100.9", PROXY, PROXY, "127.0.0.3"]
        self.assertEqual(self.addresses(6), expected)

    def test_the_standard_field_where_it_is_set(self):
        running = self.serve("--forwarded-field", "forwarded")
        for fields in (['Forwarded: for="[2001:db8::7]:80";proto=https'], ["X-Forwarded-For: 1.2.3.4"],
                       ["Forwarded: for=1.2.3.4, for=198.51.100.7"]):
            ask(running, "GET", "/metrics", fields=fields, source=PROXY)
        self.assertEqual(self.addresses(3), ["2001:db8::7", PROXY, "198.51.100.7"])

    def test_limits_follow_the_forwarded_address(self):
        running = self.serve("--limits-address-requests-per-min", "2")
        status = lambda client: ask(running, "GET", "/metrics", fields=[f"X-Forwarded-For: {client}"], source=PROXY).status
        self.assertEqual([status("198.51.100.7") for _ in range(3)], [200, 200, 429])
        self.assertEqual(status("198.51.100.8"), 200)
        self.assertEqual(status("198.51.100.7"), 429)

    def test_the_proxy_protocol(self):
        running = self.serve("--proxy-protocol", "true")
        four = bytes([192, 0, 2, 7, 198, 51, 100, 1, 0x1F, 0x90, 1, 187])
        six = bytes.fromhex("20010db8000000000000000000000007" + "00" * 16) + bytes([0, 80, 1, 187])
        version2 = lambda command, family, body: b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family, 0, len(body)]) + body
        headers = (
            (b"PROXY TCP4 192.0.2.6 198.51.100.1 4711 80\r\n", "192.0.2.6"),
            (b"PROXY TCP6 2001:db8::6 ::1 4711 80\r\n", "2001:db8::6"),
            (b"PROXY UNKNOWN\r\n", PROXY),
            (version2(1, 0x11, four), "192.0.2.7"),
            (version2(1, 0x21, six), "2001:db8::7"),
            (version2(1, 0x11, four + bytes([4, 0, 3, 1, 2, 3])), "192.0.2.7"),
            (version2(0, 0, b""), PROXY),
        )
        count = 0
        for header, expected in headers:
            for send in ("send", "drip"):
                with Connection(running.address, source=PROXY) as connection:
                    getattr(connection, send)(header + request("GET", "/metrics") * 2)
                    self.assertEqual([connection.read_response().status for _ in range(2)], [200, 200], header)
                count += 2
                self.assertEqual(self.addresses(count)[-2:], [expected] * 2, header)

    def test_what_is_no_proxy_header_ends_the_connection(self):
        running = self.serve("--proxy-protocol", "true")
        for data in (request("GET", "/livez"), b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31", b"PROXY ", b""):
            with Connection(running.address, source=PROXY) as connection:
                connection.send(data + request("GET", "/livez") if data not in (b"PROXY ", b"") else data)
                self.assertTrue(connection.ended(), data)
        with Connection(running.address) as connection:
            connection.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request("GET", "/livez"))
            self.assertEqual(connection.read_response().status, 400)
            self.assertTrue(connection.ended())


class AuditLog(Folder):
    def test_each_request_has_its_line(self):
        key, entry = new_key("ci", "crawl")
        path = self.path("audit")
        running = self.start("--auth-keys-file", self.path("keys.toml", entry), "--audit-file", path)
        _, origin = server.shared()
        body = {"urls": [origin.page(1), "http://127.0.0.1:1/?token=T0KEN"]}
        ask(running, "GET", "/livez")
        # A line is written when its answer has left: each is waited for, so that their order is known.
        ask(running, "POST", "/crawl?a=b", body, [bearer(key), "X-Request-ID: mine"])
        self.audit(path, 1)
        ask(running, "GET", "/metrics", fields=[bearer(key)])
        self.audit(path, 2)
        ask(running, "GET", "/metrics")
        self.audit(path, 3)
        with Connection(running.address) as connection:
            connection.send(b"GET / HTTP/9.9\r\n\r\n")
            connection.read_response()
        self.audit(path, 4)
        with Connection(running.address) as connection:
            connection.send(request("POST", "/crawl/stream", {"urls": [origin.page(1, latency="60s")]}, [bearer(key)]))
            connection.read_line()
        lines = self.audit(path, 5)
        self.assertEqual([(line["status"], line["outcome"], line["key"]) for line in lines],
                         [(200, "ok", "ci"), (403, "forbidden", "ci"), (401, "authentication_error", None),
                          (505, "version_not_supported", None), (200, "aborted", "ci")])
        first = lines[0]
        self.assertEqual((first["method"], first["target"], first["request_id"]), ("POST", "/crawl?a=b", "mine"))
        self.assertEqual((first["address"], first["urls"]), ("127.0.0.1", 2))
        self.assertEqual(first["first_urls"][1], "http://127.0.0.1:1/?token=***")
        self.assertTrue(first["bytes"] > 0 and first["took_us"] > 0)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)

    def test_the_file_may_be_moved_away(self):
        path = self.path("audit")
        running = self.start("--audit-file", path)
        ask(running, "GET", "/metrics")
        self.audit(path, 1)
        os.rename(path, path + ".1")
        running.child.send_signal(signal.SIGHUP)
        self.assertTrue(server.wait_until(lambda: os.path.exists(path)))
        ask(running, "GET", "/no")
        self.assertEqual(self.audit(path, 1)[0]["outcome"], "not_found")
        self.assertEqual(len(self.audit(path + ".1", 1)), 1)

    def test_what_is_written_survives_the_end(self):
        path = self.path("audit")
        running = self.start("--audit-file", path)
        with Connection(running.address) as connection:
            connection.send(request("GET", "/no") * 200)
            for _ in range(200):
                connection.read_response()
        self.assertEqual(running.stop(), 0)
        self.assertEqual(len(self.audit(path, 200)), 200)
