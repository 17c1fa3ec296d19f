"""What pages in a browser may ask of a server, and what they are kept from."""

import unittest

import server
from client import Connection, ask, request
from test_access import HTML, PAGE, Folder, bearer, new_key


class Browsers(Folder):
    APP = "https://app.example"

    def preflight(self, running, origin, path="/crawl/stream", fields=()):
        asked = [f"Origin: {origin}", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"]
        return ask(running, "OPTIONS", path, fields=[*asked, *fields])

    def test_off_unless_configured(self):
        running = self.start()
        response = self.preflight(running, self.APP)
        self.assertIsNone(response.field("access-control-allow-origin"))
        self.refused(ask(running, "GET", "/metrics", fields=[f"Origin: {self.APP}"]), 403, "forbidden")
        rebound = [f"Origin: http://evil.example:{running.port}"]
        with Connection(running.address) as connection:
            connection.send(request("POST", "/extract", PAGE, [*HTML, *rebound], host=f"evil.example:{running.port}"))
            self.refused(connection.read_response(), 403, "forbidden")
        own = f"127.0.0.1:{running.port}"
        with Connection(running.address) as connection:
            connection.send(request("POST", "/extract", PAGE, [*HTML, f"Origin: http://{own}"], host=own))
            self.assertEqual(connection.read_response().status, 200)

    def test_a_name_that_is_pointed_at_an_open_server_reads_nothing(self):
        """DNS rebinding: a page's own name leads to us, so its GETs are same-origin and have no Origin."""
        running = self.start("--hosts", "proxy.internal")
        _, origin = server.shared()

        def get(host, path="/metrics", fields=()):
            with Connection(running.address) as connection:
                connection.send(request("GET", path, fields=fields, host=host))
                return connection.read_response()

        for host in ("evil.example", f"evil.example:{running.port}", "127.0.0.1.evil.example", "localhost.evil"):
            for path in ("/metrics", "/", f"/crawl/sse?url={origin.page(1)}", "/streams/x", "/crawl/ws", "/no"):
                refused = get(host, path)
                self.refused(refused, 403, "forbidden")
                self.assertIn("server.hosts", refused.json()["error"]["message"])
        for host in ("localhost", f"127.0.0.1:{running.port}", "127.8.8.8", "[::1]:1", "a.localhost", "192.0.2.1",
                     "proxy.internal", "PROXY.internal:8080"):
            self.assertEqual(get(host).status, 200, host)
        self.assertEqual(get("evil.example", "/livez").status, 200, "a probe may call it anything")
        old = b"GET /metrics HTTP/1.0\r\n\r\n"
        with Connection(running.address) as connection:
            connection.send(old)
            self.assertEqual(connection.read_response().status, 200, "no browser goes without a Host")
        key, entry = new_key("page", "metrics")
        keyed = self.start("--auth-keys-file", self.path("keys.toml", entry))
        with Connection(keyed.address) as connection:
            connection.send(request("GET", "/metrics", fields=[bearer(key)], host="any.example"))
            self.assertEqual(connection.read_response().status, 200, "who has a key may call it anything")
        anyone = self.start("--hosts", "*")
        with Connection(anyone.address) as connection:
            connection.send(request("GET", "/metrics", host="any.example"))
            self.assertEqual(connection.read_response().status, 200)

    def test_a_page_elsewhere_starts_nothing_on_an_open_server(self):
        running = self.start("--cors-origins", self.APP)
        _, origin = server.shared()
        sse = f"/crawl/sse?url={origin.page(9_001)}"
        for site in ("cross-site", "same-site"):
            for mode, dest in (("no-cors", "image"), ("navigate", "document"), ("navigate", "iframe"), ("no-cors", "script")):
                fields = [f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}"]
                self.refused(ask(running, "GET", sse, fields=fields), 403, "forbidden")
                self.refused(ask(running, "GET", "/metrics", fields=fields), 403, "forbidden")
                pages = 200 if mode == "navigate" else 403
                self.assertEqual([ask(running, "GET", path, fields=fields).status for path in ("/", "/docs")], [pages] * 2)
            fields = [f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: cors", f"Origin: {self.APP}"]
            self.assertEqual(ask(running, "GET", "/metrics", fields=fields).status, 200, "a page that was named")
        for site in ("same-origin", "none"):
            self.assertEqual(ask(running, "GET", "/metrics", fields=[f"Sec-Fetch-Site: {site}"]).status, 200)

    def test_named_origins_may_ask_and_read(self):
        key, entry = new_key("page", "metrics")
        running = self.start("--cors-origins", self.APP, "--auth-keys-file", self.path("keys.toml", entry))
        preflight = self.preflight(running, self.APP)
        self.assertEqual((preflight.status, preflight.field("access-control-allow-origin")), (204, self.APP))
        self.assertIn("POST", preflight.field("access-control-allow-methods"))
        for name in ("Authorization", "X-API-Key", "Content-Type", "Last-Event-ID"):
            self.assertIn(name, preflight.field("access-control-allow-headers"))
        for fields, status in ((["Accept: */*"], 401), ([bearer(key)], 200)):
            response = ask(running, "GET", "/metrics", fields=[f"Origin: {self.APP}", *fields])
            self.assertEqual((response.status, response.field("access-control-allow-origin")), (status, self.APP))
            for name in ("X-Stream-ID", "X-Request-ID", "Retry-After"):
                self.assertIn(name, response.field("access-control-expose-headers"))
            self.assertIn("Origin", response.field("vary"))
        other = self.preflight(running, "https://other.example")
        self.assertIsNone(other.field("access-control-allow-origin"))
        self.refused(ask(running, "GET", "/metrics", fields=["Origin: null", bearer(key)]), 403, "forbidden")

    def test_no_body_is_sniffed(self):
        running, _ = server.shared()
        for path in ("/no", "/metrics", "/healthz"):
            self.assertEqual(ask(running, "GET", path).field("x-content-type-options"), "nosniff", path)


if __name__ == "__main__":
    unittest.main()
