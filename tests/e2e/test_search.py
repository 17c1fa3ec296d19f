"""Deepsearch: a search, then the crawl of its hits, over every transport; providers that answer as they
document, and providers that don't; the local index."""

import json
import os
import subprocess
import tempfile
import time
import unittest
import urllib.parse

import invariants
import schemas
import server
import ws
from client import Connection, ask, request, results
from providers import FIRST, KEY, Provider, Searching, brave, events_of, search_event, searxng, serper


def sse_data(text):
    return [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: ")]


class Searxng(Searching):
    def setUp(self):
        super().setUp()
        self.provider.says(searxng(self.rows))

    def holds(self, events, count=3):
        self.assertEqual(invariants.broken(events, count, begins=0), [])
        self.assertEqual([event["type"] for event in events if "seq" in event][:2], ["metadata", "search"])
        self.assertEqual(events[0]["stream_type"], "deepsearch")
        told = search_event(events)
        self.assertEqual((told["seq"], told["urls_found"]), (1, count))
        self.assertEqual((told["query"], told["provider"]), ("old weirs", "searxng"))
        for event in events:
            if event["type"] == "result":
                url, title, text = self.rows[event["search"]["rank"] - 1]
                self.assertEqual(event["result"]["url"], url)
                self.assertEqual(event["search"], {"rank": event["index"] + 1, "title": title, "snippet": text})
                self.assertTrue(event["result"]["document"]["text"])

    def test_a_search_is_announced_and_its_hits_are_crawled(self):
        self.holds(self.search(locale="en", country="us"))
        method, path, _, _ = self.provider.asked[0]
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        self.assertEqual(method, "GET")
        self.assertEqual(query, {"q": ["old weirs"], "format": ["json"], "language": ["en-US"]})

    def test_over_every_transport(self):
        body = {"query": "old weirs", "options": FIRST}
        sse = ask(self.server, "POST", "/deepsearch/sse", body)
        self.holds(sse_data(sse.body))
        self.assertIn(b"event: search\nid: ", sse.body)
        fields = ("Accept: text/event-stream",)
        self.holds(sse_data(ask(self.server, "POST", "/deepsearch/stream", body, fields).body))
        get = ask(self.server, "GET", "/v1/deepsearch/sse?query=old+weirs&robots=ignore&limit=3")
        self.holds(sse_data(get.body))
        whole = ask(self.server, "POST", "/deepsearch", body).json()
        self.assertEqual(list(whole), ["metadata", "search", "results", "summary"])
        self.assertEqual([part["index"] for part in whole["results"]], [0, 1, 2])
        self.holds([whole["metadata"], whole["search"], *whole["results"], whole["summary"]])
        with ws.Socket(self.server) as socket:
            socket.op("deepsearch", id="s", data=body)
            self.holds(socket.stream("s"))

    def call(self, arguments, token=None):
        """Notifications and result of the tool `search`."""
        params = {"name": "search", "arguments": arguments, **({"_meta": {"progressToken": token}} if token else {})}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        fields = ("Accept: application/json, text/event-stream",)
        told = sse_data(ask(self.server, "POST", "/mcp", message, fields).body) if token else [
            ask(self.server, "POST", "/mcp", message).json()]
        return [message["params"] for message in told[:-1]], told[-1]["result"]

    def test_as_a_tool_of_the_model_context_protocol(self):
        body = {"query": "old weirs", "options": FIRST}
        steps, found = self.call(body, token="t")
        self.assertEqual([step["progress"] for step in steps], [0, 1, 2, 3])
        self.assertEqual(({step["total"] for step in steps}, steps[0]["message"]), ({3}, "3 hits from searxng"))
        for given in (found, self.call(body)[1]):
            self.assertFalse(given["isError"])
            structured = given["structuredContent"]
            self.assertEqual((structured["search"]["urls_found"], structured["summary"]["successful"]), (3, 3))
            self.assertEqual(schemas.wrong("SearchEvent", structured["search"]), [])
            for (url, title, text), block, event in zip(self.rows, given["content"], structured["results"], strict=True):
                self.assertTrue(block["text"].startswith(url + "\n\n"))
                self.assertGreater(len(block["text"]), 200)
                self.assertEqual((event["search"]["title"], event["search"]["snippet"]), (title, text))
        _, listed = self.call({**body, "include_content": False})
        url, title, text = self.rows[0]
        self.assertEqual(listed["content"][0]["text"].split(), [*url.split(), *title.split(), *text.split()])
        self.provider.says(searxng([]))
        _, none = self.call(body)
        self.assertEqual((none["isError"], none["content"][0]["text"]), (False, "The search found nothing."))
        for wrong, told in [({}, "query"), ({"query": "q", "limit": 101}, "limit"), ({"query": "q", "urls": []}, "urls"),
                            ({**body, "options": {"follow": {"max_pages": 500}}}, "too_many_urls")]:
            _, refused = self.call(wrong)
            self.assertTrue(refused["isError"])
            self.assertIn(told, refused["content"][0]["text"])

    def test_the_tool_follows_links_as_far_as_it_tells(self):
        self.provider.says(searxng(self.rows[:1]))
        _, found = self.call({"query": "old weirs", "options": {**FIRST, "follow": {"max_pages": 4, "depth": 1}}})
        structured = found["structuredContent"]
        self.assertEqual(structured["summary"]["total_urls"], 4)
        self.assertEqual((len(found["content"]), len(structured["results"])), (4, 4))

    def test_hits_that_answer_twice_are_merged(self):
        url = self.rows[0][0]
        odd = [(url, "One", ""), (url + "#part", "Two", ""), (url.replace("http:", "HTTP:"), "Three", ""),
               ("ftp://a.test/", "No web", ""), (self.rows[1][0], "Last", "")]
        self.provider.says(searxng(odd))
        events = self.search()
        self.assertEqual(invariants.broken(events, 2, begins=0), [])
        found = [event["search"] for event in events if event["type"] == "result"]
        self.assertEqual(sorted((hit["rank"], hit["title"]) for hit in found), [(1, "One"), (4, "Last")])

    def test_without_content_nothing_is_fetched(self):
        before = self.server.alive() and ask(self.server, "GET", "/metrics").body
        events = self.search(include_content=False)
        self.assertEqual(invariants.broken(events, 3, begins=0), [])
        found = results(events)
        self.assertEqual([found[n]["url"] for n in range(3)], [row[0] for row in self.rows])
        self.assertEqual({result["gate_decision"] for result in found.values()}, {"skipped"})
        self.assertEqual(events[-1]["successful"], 3)
        pages = b'forebay_pages_total{outcome="approved"}'
        line = lambda text: [row for row in text.split(b"\n") if row.startswith(pages)]
        self.assertEqual(line(before), line(ask(self.server, "GET", "/metrics").body))

    def test_a_limit_holds_and_nothing_found_is_an_answer(self):
        self.assertEqual(invariants.broken(self.search(limit=2), 2, begins=0), [])
        self.provider.says(searxng([]))
        events = self.search()
        self.assertEqual(invariants.broken(events, 0, begins=0), [])
        self.assertEqual([event["type"] for event in events if "seq" in event], ["metadata", "search", "summary"])
        whole = ask(self.server, "POST", "/deepsearch", {"query": "x"}).json()
        self.assertEqual((whole["results"], whole["summary"]["total_urls"]), ([], 0))

    def test_hits_go_through_the_guard(self):
        inside = "http://10.0.0.1/"
        self.provider.says(searxng([(inside, "Inside", ""), (self.provider.url + "/x", "Provider", "")]))
        events = self.search()
        codes = {result["url"]: (result["error"] or {}).get("code") for result in results(events).values()}
        self.assertEqual(codes[inside], "blocked_egress")
        # Loopback is allowed by the test's own flags, so the provider's page is only no page.
        self.assertEqual(codes[self.provider.url + "/x"], "unsupported_type")

    def test_idempotency_and_resume_work_as_for_crawls(self):
        key, body = ("Idempotency-Key: search-1",), {"query": "old weirs", "options": FIRST}
        first, events = events_of(self.server, body, key)
        second, again = events_of(self.server, body, key)
        self.assertEqual(first.field("x-stream-id"), second.field("x-stream-id"))
        durable = lambda all: [event for event in all if "seq" in event]
        self.assertEqual(durable(events), durable(again))
        self.assertEqual(len(self.provider.asked), 1)
        conflict, _ = events_of(self.server, {**body, "limit": 5}, key)
        self.assertEqual(conflict.status, 409)
        target = f"/streams/{first.field('x-stream-id')}/events?after=0"
        rest = [json.loads(line) for line in ask(self.server, "GET", target).body.splitlines()]
        self.assertEqual([event["seq"] for event in rest], [1, 2, 3, 4, 5])
        self.assertEqual(rest[0]["type"], "search")

    def test_a_search_goes_on_where_its_connection_broke(self):
        """Over SSE and over WebSocket: the search is not made again, and no hit is lost."""
        body = {"query": "old weirs", "options": FIRST}
        rows = [(self.origin.page(n, latency="150ms"), *row[1:]) for n, row in enumerate(self.rows)]
        self.provider.says(searxng(rows))
        durable = lambda events: [event for event in events if "seq" in event]
        for cut in range(1, 5):
            with Connection(self.server.address) as connection:
                connection.send(request("POST", "/deepsearch/sse", body))
                head, first = connection.read_head(), []
                for line in connection.read_lines(head):
                    first += sse_data(line)
                    if len(durable(first)) == cut:
                        break
            stream, last = head.field("x-stream-id"), durable(first)[-1]["seq"]
            fields = ("Accept: text/event-stream", f"Last-Event-ID: {stream}.{last}")
            rest = sse_data(ask(self.server, "GET", f"/streams/{stream}/events", fields=fields).body)
            self.assertEqual([event["seq"] for event in durable(first + rest)], list(range(6)))
            self.whole(durable(first + rest), rows)
        for cut in ("metadata", "search", "result"):
            with ws.Socket(self.server) as socket:
                socket.op("deepsearch", id="s", data=body)
                first = socket.until("s", cut)
            with ws.Socket(self.server) as socket:
                socket.op("resume", id="r", stream_id=first[0]["stream_id"], after=durable(first)[-1]["seq"])
                rest = socket.stream("r")
            self.whole(durable(first + rest), rows)
        self.assertEqual(len(self.provider.asked), 7)

    def whole(self, events, rows):
        self.assertEqual(invariants.broken(events, 3, begins=0), [])
        self.assertEqual([event["type"] for event in events], ["metadata", "search"] + ["result"] * 3 + ["summary"])
        found = {event["search"]["rank"]: event["result"]["url"] for event in events if event["type"] == "result"}
        self.assertEqual(found, {n: row[0] for n, row in enumerate(rows, 1)})

    def test_what_is_wrong_is_refused_before_anybody_is_asked(self):
        for body, field in [({}, "query"), ({"query": ""}, "query"), ({"query": "q", "limit": 0}, "limit"),
                            ({"query": "q", "limit": 1000}, "limit"), ({"query": "q", "urls": []}, "urls"),
                            ({"query": "q", "country": "usa"}, "country")]:
            refused = ask(self.server, "POST", "/deepsearch", body)
            self.assertEqual(refused.status, 400, body)
            self.assertEqual(refused.json()["error"]["details"][0]["field"], field, body)
        for target in ("/deepsearch", "/deepsearch/stream"):
            self.assertEqual(ask(self.server, "GET", target).status, 405)
        self.assertEqual(ask(self.server, "OPTIONS", "/deepsearch/sse").field("allow"), "GET, HEAD, POST, OPTIONS")
        with ws.Socket(self.server) as socket:
            socket.op("deepsearch", id="s", data={"query": ""})
            self.assertEqual(socket.next("s")["error"]["code"], "bad_message")
        self.assertEqual(self.provider.asked, [])

    def test_a_cancel_ends_the_search(self):
        self.provider.says(searxng(self.rows), delay=20)
        began = time.monotonic()
        with ws.Socket(self.server) as socket:
            socket.op("deepsearch", id="s", data={"query": "slow"})
            socket.until("s", "metadata")
            socket.op("cancel", id="s")
            events = socket.stream("s")
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual((events[-1]["type"], events[-1]["status"], events[-1]["total_urls"]), ("summary", "cancelled", 0))

    def test_a_deadline_ends_it_too(self):
        self.provider.says(searxng(self.rows), delay=20)
        events = self.search(options={"deadline_ms": 200})
        self.assertEqual((events[-1]["type"], events[-1]["status"]), ("summary", "deadline_exceeded"))


class Serper(Searching):
    name = "serper"

    def test_it_is_asked_by_post_with_its_key_in_a_field(self):
        self.provider.says(serper(self.rows))
        events = self.search(country="de", locale="de-AT", limit=3)
        self.assertEqual(invariants.broken(events, 3, begins=0), [])
        self.assertEqual(search_event(events)["provider"], "serper")
        method, path, fields, body = self.provider.asked[0]
        self.assertEqual((method, path), ("POST", "/"))
        self.assertEqual((fields["X-API-KEY"], fields["Content-Type"]), (KEY, "application/json"))
        self.assertEqual(json.loads(body), {"q": "old weirs", "num": 3, "gl": "de", "hl": "de"})


class Brave(Searching):
    name = "brave"

    def test_it_is_asked_with_its_token_and_marks_are_taken_out(self):
        rows = [(self.rows[0][0], "A &amp; B", "the <strong>old</strong> weir")]
        self.provider.says(brave(rows))
        events = self.search(country="us", locale="en")
        self.assertEqual(invariants.broken(events, 1, begins=0), [])
        hit = next(event["search"] for event in events if event["type"] == "result")
        self.assertEqual(hit, {"rank": 1, "title": "A & B", "snippet": "the old weir"})
        method, path, fields, _ = self.provider.asked[0]
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        self.assertEqual(query, {"q": ["old weirs"], "count": ["10"], "country": ["US"], "search_lang": ["en"]})
        self.assertEqual((method, fields["X-Subscription-Token"]), ("GET", KEY))


class Failures(unittest.TestCase):
    """A server for each, because a breaker remembers."""

    def setUp(self):
        self.provider = Provider()
        self.addCleanup(self.provider.close)

    def run_server(self, *flags, name="brave"):
        more = ["--search-provider", name, "--search-url", self.provider.url, "--search-key", KEY]
        instance = server.Server(*more, *flags)
        self.addCleanup(instance.stop)
        return instance

    def error(self, instance, status):
        """The error of a search that begins and fails."""
        head, events = events_of(instance, {"query": "q"})
        self.assertEqual(head.status, 200, head)
        durable = [event["type"] for event in events if "seq" in event]
        self.assertEqual(durable, ["metadata", "error"])
        self.assertEqual(invariants.broken(events, 0), [])
        error = events[-1]["error"]
        self.assertEqual((error["code"], error["status"], error["retryable"]), ("search_unavailable", 503, True))
        self.assertGreater(error["retry_after_ms"], 0)
        self.assertIn(status, error["message"])
        self.assertNotIn(KEY, json.dumps(events) + instance.output())

    def test_whatever_it_answers_is_an_error_event(self):
        for status, answer, told in [(500, b"", "500"), (200, b"<html>", "JSON"), (200, b"{}", "JSON"),
                                     (200, b"", "JSON"), (204, b"", "204"),
                                     (200, b'{"type":"search","x":"' + b"x" * (1 << 21) + b'"}', "")]:
            with self.subTest(status=status, answer=answer[:20]):
                provider, instance = self.provider, self.run_server()
                provider.says(answer, status)
                self.error(instance, told)

    def test_a_redirect_is_not_followed(self):
        other = Provider()
        self.addCleanup(other.close)
        self.provider.says(b"", 302, Location=other.url + "/")
        self.error(self.run_server(), "redirect")
        self.assertEqual(other.asked, [], "the key went on")

    def test_a_tool_says_why_there_is_nothing(self):
        self.provider.says(b"", 500)
        instance = self.run_server()
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "q"}}}
        # Five failures that the stream tells; then it is known before any stream begins.
        for _ in range(6):
            found = ask(instance, "POST", "/mcp", message).json()["result"]
            self.assertTrue(found["isError"])
            self.assertTrue(found["content"][0]["text"].startswith("search_unavailable: "), found)
        self.assertEqual(len(self.provider.asked), 5)

    def test_a_silent_provider_is_left(self):
        self.provider.says(brave([]), delay=20)
        self.error(self.run_server("--search-timeout-ms", "300"), "")

    def test_who_asks_to_be_left_alone_is_and_later_requests_are_refused_at_once(self):
        self.provider.says(b"{}", 429, Retry_After="7")
        instance = self.run_server()
        self.error(instance, "too often")
        for target in ("/deepsearch", "/deepsearch/stream", "/deepsearch/sse"):
            refused = ask(instance, "POST", target, {"query": "q"})
            self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, "search_unavailable"))
            self.assertIn(int(refused.field("retry-after")), range(5, 8))
        with ws.Socket(instance) as socket:
            socket.op("deepsearch", id="s", data={"query": "q"})
            self.assertEqual(socket.next("s")["error"]["code"], "search_unavailable")
        self.assertEqual(len(self.provider.asked), 1)

    def test_a_wrong_key_rests_too(self):
        self.provider.says(b"{}", 401)
        instance = self.run_server()
        self.error(instance, "401")
        self.assertEqual(ask(instance, "POST", "/deepsearch", {"query": "q"}).status, 503)

    def test_a_breaker_opens_after_failures(self):
        self.provider.says(b"", 500)
        instance = self.run_server()
        for _ in range(5):
            self.error(instance, "500")
        self.assertEqual(ask(instance, "POST", "/deepsearch", {"query": "q"}).status, 503)
        self.assertEqual(len(self.provider.asked), 5)

    def test_the_quota_is_known_before_the_answer_begins(self):
        self.provider.says(brave([]))
        instance = self.run_server("--search-queries-per-min", "2")
        statuses = [ask(instance, "POST", "/deepsearch", {"query": "q"}).status for _ in range(3)]
        self.assertEqual(statuses, [200, 200, 503])
        self.assertEqual(len(self.provider.asked), 2)

    def test_no_provider_is_503_and_half_a_configuration_does_not_start(self):
        with server.Server("--search-provider", "off") as instance:
            refused = ask(instance, "POST", "/deepsearch", {"query": "q"})
            self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, "search_unavailable"))
            self.assertTrue(refused.field("retry-after"))
            with ws.Socket(instance) as socket:
                socket.op("deepsearch", id="s", data={"query": "q"})
                error = socket.next("s")["error"]
                self.assertEqual((error["code"], error["status"]), ("search_unavailable", 503))
        for flags in (["--search-provider", "brave"], ["--search-provider", "searxng"],
                      ["--search-provider", "searxng", "--search-url", "ftp://a.test/"]):
            with self.assertRaises(RuntimeError):
                server.Server(*flags)


class Local(unittest.TestCase):
    """The index of what this server has extracted."""

    @classmethod
    def setUpClass(cls):
        cls.origin = server.shared()[1]
        cls.server = server.Server()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.output()

    def crawl(self, urls, **options):
        body = {"urls": urls, "options": {**FIRST, **options}}
        return ask(self.server, "POST", "/crawl", body).json()["results"]

    def indexed(self):
        return ask(self.server, "GET", "/healthz").json()["search"]["pages"]

    def find(self, query, **body):
        body = {"query": query, "options": FIRST, "include_content": False, **body}
        def answered():
            events = events_of(self.server, body)[1]
            return any(event["type"] == "search" for event in events) and events

        # The index may be busy for longer than a search waits, where the machine is.
        events = server.wait_until(answered, 60)
        self.assertTrue(events, "the index never answered")
        count = search_event(events)["urls_found"]
        self.assertEqual(invariants.broken(events, count, begins=0), [])
        return {event["result"]["url"]: event["search"] for event in events if event["type"] == "result"}

    def test_what_was_crawled_is_found_and_crawled_again_from_the_cache(self):
        urls = [self.origin.page(n) for n in range(700, 710)]
        pages = self.crawl(urls)
        title = pages[3]["result"]["document"]["title"]
        found = server.wait_until(lambda: self.find(title).get(urls[3]))
        self.assertEqual((found["rank"], found["title"]), (1, title))
        self.assertTrue(found["snippet"])
        _, events = events_of(self.server, {"query": title, "limit": 3, "options": FIRST})
        self.assertEqual(invariants.broken(events, 3, begins=0), [])
        self.assertEqual(search_event(events)["provider"], "local")
        first = next(event for event in events if event["type"] == "result" and event["search"]["rank"] == 1)
        self.assertEqual((first["result"]["url"], first["result"]["cache"]), (urls[3], "hit"))
        self.assertEqual(first["result"]["document"], pages[3]["result"]["document"])

    def test_what_is_private_or_leaves_no_trace_is_not_found(self):
        urls = [self.origin.page(n) for n in range(720, 725)]
        self.crawl(urls[:1])
        self.assertTrue(server.wait_until(lambda: self.indexed() > 0))
        self.crawl(urls[1:2], cache_mode="bypass")
        self.crawl(urls[2:3], cache_mode="read_only")
        self.crawl(urls[3:4], headers={"Cookie": "a=1"})
        self.crawl(urls[4:5], headers={"X-Token": "1"})
        title = self.crawl(urls[:1], cache_mode="bypass")[0]["result"]["document"]["title"]
        self.assertTrue(server.wait_until(lambda: urls[0] in self.find(title, limit=50)))
        pages = self.crawl(urls, cache_mode="bypass")
        found = self.find(" ".join(page["result"]["document"]["title"] for page in pages), limit=50)
        self.assertEqual([url for url in urls[1:] if url in found], [])

    def test_an_empty_answer_is_an_answer(self):
        self.assertEqual(self.find("zxqvbnonexistentword"), {})
        self.assertEqual(self.find('"*:(~^'), {})


class Keys(unittest.TestCase):
    """With keys, whoever asks finds what it has fetched itself; on disk, after a restart, too."""

    def test_pages_of_one_key_are_not_found_by_another(self):
        origin = server.shared()[1]
        with tempfile.TemporaryDirectory() as folder:
            keys, tokens = os.path.join(folder, "keys.toml"), {}
            with open(keys, "wb") as file:
                for name in ("ann", "bob", "eve"):
                    command = [server.FOREBAY, "key", "new", "--name", name, "--scopes", "crawl"]
                    made = subprocess.run(command, capture_output=True, check=True, timeout=60)
                    file.write(made.stdout)
                    tokens[name] = made.stderr.decode().strip()
            os.chmod(keys, 0o600)
            flags = ("--auth-keys-file", keys, "--search-index-dir", os.path.join(folder, "index"))
            url = origin.page(750)

            def find(instance, name):
                fields = (f"Authorization: Bearer {tokens[name]}",)
                body = {"query": title, "include_content": False}
                _, events = events_of(instance, body, fields)
                return [event["result"]["url"] for event in events if event["type"] == "result"]

            def crawl(instance, name, **options):
                fields = (f"Authorization: Bearer {tokens[name]}",)
                body = {"urls": [url], "options": {**FIRST, **options}}
                return ask(instance, "POST", "/crawl", body, fields).json()["results"][0]["result"]

            with server.Server(*flags) as instance:
                title = crawl(instance, "ann")["document"]["title"]
                self.assertTrue(server.wait_until(lambda: find(instance, "ann") == [url]))
                self.assertEqual(find(instance, "bob"), [])
                # Who gets it from the cache has got it: but not where a request leaves no trace.
                for options, kept in [({"cache_mode": "read_only"}, False), ({}, True)]:
                    self.assertEqual(crawl(instance, "eve", **options)["cache"], "hit")
                    self.assertEqual(bool(server.wait_until(lambda: find(instance, "eve"), 10 if kept else 2)), kept)
                self.assertEqual(find(instance, "bob"), [])
            with server.Server(*flags) as instance:
                self.assertEqual(find(instance, "ann"), [url])
                self.assertEqual(find(instance, "bob"), [])
            with server.Server(*flags, "--search-shared", "true") as instance:
                self.assertEqual(find(instance, "bob"), [url])
