"""The console, the readable description and the description: forms, caching, what protects them."""

import base64
import gzip
import hashlib
import html
import json
import re
import subprocess
import tempfile
import unittest

import schemas
import server
from client import ask

PAGES = ("/", "/docs", "/openapi.json")


def hash_of(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, _ = server.shared()

    def test_a_page_runs_its_own_script_and_nothing_else(self):
        for path in PAGES[:2]:
            answer = ask(self.server, "GET", path)
            self.assertEqual((answer.status, answer.field("content-type")), (200, "text/html; charset=utf-8"))
            text, policy = answer.body.decode(), answer.field("content-security-policy")
            for tag in ("script", "style"):
                inner = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
                self.assertEqual(len(inner), 1)
                self.assertIn(hash_of(inner[0]), policy)
            for part in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"):
                self.assertIn(part, policy)
            self.assertNotIn("unsafe", policy)
            for name, value in [
                ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY"),
            ]:
                self.assertEqual(answer.field(name), value)
            self.assertEqual(re.findall(r"(?:src|href)=\"(?:https?:)?//", text), [])

    def test_forms_hold_the_same_page_and_are_cached_by_their_tags(self):
        for path in PAGES:
            plain = ask(self.server, "GET", path)
            self.assertIsNone(plain.field("content-encoding"))
            tags = {plain.field("etag")}
            for coding in ("gzip", "br", "zstd"):
                fields = [f"Accept-Encoding: {coding}"]
                # The compressed forms follow a moment after the start.
                def compressed():
                    answer = ask(self.server, "GET", path, fields=fields)
                    return answer if answer.field("content-encoding") == coding else None
                answer = server.wait_until(compressed)
                self.assertIsNotNone(answer, f"{path} {coding}")
                self.assertEqual(answer.field("vary"), "Accept-Encoding")
                self.assertLess(len(answer.body), len(plain.body) / 2)
                if coding == "gzip":
                    self.assertEqual(gzip.decompress(answer.body), plain.body)
                tag = answer.field("etag")
                tags.add(tag)
                known = ask(self.server, "GET", path, fields=[*fields, f"If-None-Match: W/{tag}, \"x\""])
                self.assertEqual((known.status, known.body), (304, b""))
                self.assertEqual(known.field("etag"), tag)
            self.assertEqual(len(tags), 4)
            head = ask(self.server, "HEAD", path)
            self.assertEqual(int(head.field("content-length")), len(plain.body))

    def test_the_description_is_of_this_server(self):
        with server.Server(urls_max=7) as running:
            told = ask(running, "GET", "/v1/openapi.json").json()
        self.assertEqual(told["openapi"], "3.1.1")
        self.assertEqual(told["components"]["schemas"]["CrawlRequest"]["properties"]["urls"]["maxItems"], 7)

    def test_answers_fit_their_schemas(self):
        running, origin = server.shared()
        body = {"urls": [origin.page(1), "http://10.0.0.1/"], "options": {"robots": "ignore"}}
        answer = ask(running, "POST", "/crawl", body)
        whole = answer.json()
        self.assertEqual(schemas.wrong("CrawlAnswer", whole), [])
        stream = whole["metadata"]["stream_id"]
        for method, path, name in [
            ("GET", f"/streams/{stream}", "StreamState"), ("GET", f"/streams/{stream}/trace", "Trace"),
            ("GET", "/healthz", "Health"), ("GET", "/latency", "Latency"), ("GET", "/nowhere", "Refusal"),
        ]:
            answer = ask(running, method, path)
            self.assertIn(answer.status, (200, 404))
            self.assertEqual(schemas.wrong("Refusal" if answer.status == 404 else name, answer.json()), [], path)
        extracted = ask(running, "POST", "/extract", {"html": "<title>t</title><p>water"})
        self.assertEqual(schemas.wrong("Extracted", extracted.json()), [])
        refused = ask(running, "POST", "/crawl", {"urls": [], "x": 1}).json()
        self.assertEqual(schemas.wrong("Refusal", refused), [])

    def test_examples_fit_their_schemas(self):
        schemes = schemas.description()["components"]["schemas"]
        examples = [(name, example) for name, schema in schemes.items() for example in schema.get("examples", [])]
        self.assertGreater(len(examples), 15)
        for name, example in examples:
            self.assertEqual(schemas.wrong(name, example), [], name)

    def test_the_examples_of_the_readable_description_work(self):
        """Each route's curl, with this server's address and a page of ours; an id that is nobody's is 404."""
        running, origin = server.shared()
        page = html.unescape(ask(running, "GET", "/docs").body.decode())
        commands = re.findall(r'<pre class="curl">(curl .*?)</pre>', page, re.DOTALL)
        self.assertGreater(len(commands), 25)
        for command in commands:
            with self.subTest(command):
                command = command.replace("http://localhost:8080", running.url)
                command = re.sub(r"http://localhost:\d+", running.url, command).replace("https://example.com/", origin.page(1))
                told = "--silent --max-time 30 --output /dev/null --write-out %{http_code}"
                done = subprocess.run(["bash", "-c", f"{command} {told}"], capture_output=True, timeout=60, check=False)
                status = done.stdout.decode()
                self.assertIn(status, ("404",) if "/01J9" in command else ("200", "202", "422"), done)

    def test_bounds_follow_a_reload(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            def write(text):
                file.seek(0)
                file.truncate()
                file.write(text)
                file.flush()

            def told(running):
                tools = ask(running, "POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).json()
                urls = [tool for tool in tools["result"]["tools"] if tool["name"] == "crawl"][0]["inputSchema"]["properties"]["urls"]
                described = ask(running, "GET", "/openapi.json")
                body = described.json()["components"]["schemas"]["CrawlRequest"]["properties"]["urls"]
                docs = ask(running, "GET", "/docs").body.decode()
                shown = re.search(r"1 to (\d+) entries", docs[docs.index('id="schema-CrawlRequest"'):])
                return described.field("etag"), urls["maxItems"], body["maxItems"], int(shown[1])

            write("[stream]\nurls_max = 3\n")
            with server.Server("--config", file.name) as running:
                before = told(running)
                self.assertEqual(before[1:], (3, 3, 3))
                write("[stream]\nurls_max = 5\n")
                self.assertEqual(ask(running, "POST", "/admin/reload").status, 200)
                after = told(running)
                self.assertEqual(after[1:], (5, 5, 5))
                self.assertNotEqual(before[0], after[0], "the tag is of the page that it names")
                gzipped = ["Accept-Encoding: gzip"]
                compressed = lambda: ask(running, "GET", "/openapi.json", fields=gzipped).field("content-encoding")
                self.assertTrue(server.wait_until(compressed), "the new form is compressed, too")

    def test_a_server_with_keys_shows_its_pages_to_everybody(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as keys:
            key = "fb_" + "0" * 64
            made = json.dumps("sha256:" + hashlib.sha256(key.encode()).hexdigest())
            keys.write(f'[[key]]\nname = "a"\nhash = {made}\nscopes = ["extract"]\n')
            keys.flush()
            with server.Server("--auth-keys-file", keys.name) as running:
                for path in PAGES:
                    self.assertEqual(ask(running, "GET", path).status, 200, path)
                message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
                self.assertEqual(ask(running, "POST", "/mcp", message).status, 401)
                key = [f"Authorization: Bearer {key}"]
                self.assertEqual(ask(running, "POST", "/mcp", message, key).status, 200)
                call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
                for name, arguments, status in [
                    ("extract", {"html": "<p>water"}, 200), ("crawl", {"urls": ["http://127.0.0.1/"]}, 403),
                    ("search", {"query": "water"}, 403),
                ]:
                    params = {"name": name, "arguments": arguments}
                    self.assertEqual(ask(running, "POST", "/mcp", {**call, "params": params}, key).status, status, name)
