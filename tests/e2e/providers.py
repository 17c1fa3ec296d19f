"""Search providers on loopback that answer as each provider documents it: one whole answer of each lies in
`fixtures/search`, `ORIGIN` in it standing for an origin of the test's own."""

import copy
import http.server
import json
import os
import threading
import time
import unittest

import server
from client import Connection, request

FIRST = {"robots": "ignore"}
KEY = "k-3f9a77"
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "search")


class Provider:
    """A search provider on loopback that answers what the test says and keeps what it was asked."""

    def __init__(self):
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                at = len(provider.asked)
                provider.asked.append((self.command, self.path, dict(self.headers), body))
                status, fields, answer, delay = provider.say[min(at, len(provider.say) - 1)]
                time.sleep(delay)
                try:
                    self.send_response(status)
                    for name, value in fields.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self.asked = []
        self.says({})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def says(self, answer, status=200, delay=0, **fields):
        """What every question is answered."""
        self.say = []
        self.then(answer, status, delay, **fields)

    def then(self, answer, status=200, delay=0, **fields):
        """What the next question is answered, and those after it."""
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        self.say.append((status, {"Content-Type": "application/json", **named}, body, delay))

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def recorded(name, origin="http://origin.test"):
    """A provider's whole answer, as it documents it."""
    with open(os.path.join(FIXTURES, name + ".json"), encoding="utf-8") as file:
        return json.loads(file.read().replace("ORIGIN", origin))


def answered(name, path, names, rows):
    """The recorded answer with other hits in it: each is the first one with its URL, title and text changed."""
    answer = recorded(name)
    within = answer
    for part in path[:-1]:
        within = within[part]
    model = within[path[-1]][0]
    within[path[-1]] = []
    for row in rows:
        hit = copy.deepcopy(model)
        hit.update(zip(names, row))
        within[path[-1]].append(hit)
    return answer


def searxng(rows):
    return answered("searxng", ["results"], ("url", "title", "content"), rows)


def serper(rows):
    return answered("serper", ["organic"], ("link", "title", "snippet"), rows)


def brave(rows, more=True):
    answer = answered("brave", ["web", "results"], ("url", "title", "description"), rows)
    answer["query"]["more_results_available"] = more
    return answer


def events_of(instance, body, fields=(), target="/deepsearch/stream"):
    """Head and events of one deepsearch; no events where it is refused."""
    with Connection(instance.address) as connection:
        connection.send(request("POST", target, body, fields))
        head = connection.read_head()
        if head.status != 200:
            head.body = b"".join(connection.read_body(head))
            return head, []
        return head, [json.loads(line) for line in connection.read_lines(head)]


def search_event(events):
    """The event `search` of a stream; where it took its time, progress was told before."""
    return next(event for event in events if event["type"] == "search")


class Searching(unittest.TestCase):
    """A server with a scripted provider."""

    name = "searxng"
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.origin = server.shared()[1]
        cls.provider = Provider()
        key = [] if cls.name == "searxng" else ["--search-key", KEY]
        # The provider's address is not among those that may be fetched: naming it is enough.
        flags = ["--search-provider", cls.name, "--search-url", cls.provider.url, *key, *cls.flags]
        cls.server = server.Server(*flags)

    @classmethod
    def tearDownClass(cls):
        cls.provider.close()
        assert cls.server.stop() == 0, cls.server.output()

    def setUp(self):
        self.provider.asked.clear()
        self.rows = [(self.origin.page(n), f"Title {n}", f"Snippet {n}") for n in (1, 2, 3)]

    def search(self, **body):
        head, events = events_of(self.server, {"query": "old weirs", "options": FIRST, **body})
        self.assertEqual(head.status, 200, head)
        return events
