"""Links that are followed: depth, hosts, patterns, what pages and robots.txt say, sitemaps, traps; and
that the stream's promises hold while its totals grow."""

import gzip
import http.server
import json
import random
import threading
import time
import unittest

import invariants
import server
import ws
from client import ask, stream

# As in src/limits.rs.
SITEMAP_BYTES_MAX = 4 * 1024 * 1024
SITEMAP_FILES_MAX = 16
SITEMAP_HOSTS_MAX = 8
TEXT = "<p>The weir holds the water of the river back, so that the mill has enough of it all year. </p>" * 3


def page(title, *links, head="", rel=""):
    anchors = " ".join(f'<a href="{link}"{rel}>to {link}</a>' for link in links)
    return f"<html><head><title>{title}</title>{head}</head><body><nav>{anchors}</nav><article><h1>{title}</h1>{TEXT}</article></body></html>"


class Site:
    """A small linked web on loopback that counts what is asked for."""

    def __init__(self):
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                site.asked.append(self.path)
                time.sleep(site.delay)
                status, kind, body, *tags = site.answer(self.path)
                if isinstance(body, str):
                    body = body.encode()
                self.send_response(status)
                if status == 301:
                    self.send_header("Location", body.decode())
                for tag in tags:
                    self.send_header("X-Robots-Tag", tag)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.asked = []
        self.delay = 0
        self.servers = [http.server.ThreadingHTTPServer((host, 0), Handler) for host in ("127.0.0.1", "127.0.0.2")]
        for one in self.servers:
            one.daemon_threads = True
            threading.Thread(target=one.serve_forever, daemon=True).start()
        self.url, other = (f"http://{one.server_address[0]}:{one.server_port}" for one in self.servers)
        self.other = other + "/elsewhere"
        self.files = self.pages()

    def pages(self):
        html = "text/html; charset=utf-8"
        trees = {
            "/": page("Home", "/a", "/b", "/a#part", "/hidden.pdf", self.other, "mailto:x@y.test"),
            "/a": page("A", "/a1", "/", "/b"),
            "/a1": page("A1", "/a2"),
            "/a2": page("A2", "/a3"),
            "/a3": page("A3"),
            "/b": page("B", "/c?x=1", "/c?x=2", "/private/x"),
            "/c": page("C", head='<link rel="canonical" href="/c?x=2">'),
            "/elsewhere": page("Elsewhere"),
            "/nofollow": page("No", "/n1", head='<meta name="robots" content="noindex, nofollow">'),
            "/rel": page("Rel", "/r1", rel=' rel="nofollow"'),
            "/canonical": page("Canonical", "/c1", "/c2"),
            "/c1": page("C1", head='<link rel="canonical" href="/c2">'),
            "/c2": page("C2"),
            "/moved-to": page("Moved", "/moved", "/moved-to"),
            "/lonely": page("Lonely"),
            "/private/x": page("Private"),
        }
        files = {path: (200, html, body) for path, body in trees.items()}
        tagged = {
            "none": ["max-snippet: 5, none"], "nofollow": ["nofollow"], "ours": ["all", "forebay: noindex, nofollow"],
            "noindex": ["noindex"], "theirs": ["otherbot: none", "unavailable_after: 25 Jun 2010 15:00:00 PST"],
        }
        for name, tags in tagged.items():
            files[f"/tag-{name}"] = (200, html, page(f"Tag {name}", f"/tag-{name}-1"), *tags)
            files[f"/tag-{name}-1"] = (200, html, page(f"Behind {name}"))
        files["/moved"] = (301, html, f"{self.url}/moved-to")
        files["/robots.txt"] = (200, "text/plain", f"User-agent: *\nDisallow: /private\nSitemap: {self.url}/index.xml\n")
        index = "".join(f"<sitemap><loc>{self.url}{path}</loc></sitemap>" for path in ("/one.xml", "/two.xml.gz", "/gone.xml"))
        files["/index.xml"] = (200, "application/xml", f"<sitemapindex>{index}</sitemapindex>")
        urls = lambda *paths: "<urlset>" + "".join(f"<url><loc>{self.url}{path}</loc></url>" for path in paths) + "</urlset>"
        files["/one.xml"] = (200, "text/xml", urls("/lonely", "/a"))
        files["/two.xml.gz"] = (200, "application/octet-stream", gzip.compress(urls("/b", "/a3").encode()))
        return files

    def answer(self, path):
        if path in self.files:
            return self.files[path]
        plain, _, query = path.partition("?")
        if plain == "/calendar":
            day = int(query.partition("=")[2] or 0)
            return (200, "text/html", page(f"Day {day}", *(f"/calendar?day={day + n}" for n in range(1, 9))))
        if plain.startswith("/deep"):
            return (200, "text/html", page("Deep", plain + "/x", plain + "/deep"))
        if plain in self.files:
            return self.files[plain]
        return (404, "text/html", "<title>gone</title><p>gone")

    def close(self):
        for one in self.servers:
            one.shutdown()
            one.server_close()


class Following(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = Site()
        cls.server = server.Server()

    @classmethod
    def tearDownClass(cls):
        cls.site.close()
        assert cls.server.stop() == 0, cls.server.output()

    def paths(self, events, begins=1):
        """Path by index of a stream, whose promises hold."""
        total = events[-1]["total_urls"]
        self.assertEqual(invariants.broken(events, total, begins=begins), [])
        found = {}
        for event in events:
            if event["type"] == "result":
                found[event["index"]] = event["result"]["url"].removeprefix(self.site.url)
                self.assertEqual("discovered_from" in event, event["index"] >= begins, event)
        self.assertEqual(len(set(found.values())), len(found), found)
        return found

    def follow(self, *starts, options=None, **follow):
        urls = [self.site.url + path for path in starts or ["/"]]
        options = {"cache_mode": "bypass", **(options or {})}
        _, events = stream(self.server, urls, follow=follow, **options)
        return events

    def found(self, *starts, **follow):
        return set(self.paths(self.follow(*starts, **follow), begins=max(len(starts), 1)).values())

    def test_links_are_followed_as_deep_as_asked(self):
        self.assertEqual(self.found(), {"/", "/a", "/b"})
        self.assertEqual(self.found(depth=2), {"/", "/a", "/b", "/a1", "/c?x=1", "/c?x=2", "/private/x"})
        self.assertEqual(self.found("/a1", depth=1), {"/a1", "/a2"})
        self.assertEqual(self.found("/a1", depth=9), {"/a1", "/a2", "/a3"})

    def test_each_tells_where_it_was_found_and_totals_are_true(self):
        events = self.follow(depth=2)
        self.assertEqual(events[0]["total_urls"], 1)
        froms = {event["result"]["url"].removeprefix(self.site.url): event.get("discovered_from")
                 for event in events if event["type"] == "result"}
        self.assertEqual((froms["/"], froms["/a"], froms["/a1"]), (None, self.site.url + "/", self.site.url + "/a"))
        totals = [event["progress"]["total"] for event in events if event["type"] == "result"]
        self.assertEqual((totals[0], totals[-1], totals), (3, 7, sorted(totals)))
        disallowed = next(event["result"] for event in events if event.get("index") is not None
                          and event["result"]["url"].endswith("/private/x"))
        self.assertEqual(disallowed["error"]["code"], "robots_disallowed")

    def test_totals_grow_in_progress(self):
        """What a progress event counts is what is known then: never less than before, in the end all."""
        self.site.delay = 0.03
        self.addCleanup(setattr, self.site, "delay", 0)
        events = self.follow("/calendar?day=0", options={"concurrency": 1, "progress_ms": 10}, depth=2, max_pages=30)
        told = [event["items_total"] for event in events if event["type"] == "progress"]
        total = events[-1]["total_urls"]
        self.assertEqual(told, sorted(told))
        self.assertGreater(total, 8)
        self.assertEqual((told[0], told[-1]), (1, total))
        for event in events:
            if event["type"] == "progress":
                self.assertLessEqual(event["items_completed"], event["items_total"])
                share = 100 * event["items_completed"] / event["items_total"]
                self.assertAlmostEqual(event["progress_percentage"], share, delta=0.1)

    def test_over_every_transport_and_from_the_cache(self):
        body = {"urls": [self.site.url + "/"], "options": {"follow": {"depth": 2}}}
        for _ in range(2):
            whole = ask(self.server, "POST", "/crawl", body).json()
            events = [whole["metadata"], *whole["results"], whole["summary"]]
            self.assertEqual(len(self.paths(events)), 7)
            self.assertEqual([part["index"] for part in whole["results"]], list(range(7)))
        self.assertEqual(whole["summary"]["from_cache"], 6, "all but the page that robots.txt keeps")
        sse = ask(self.server, "POST", "/crawl/sse", body).body
        events = [json.loads(line[6:]) for line in sse.split(b"\n") if line.startswith(b"data: ")]
        self.assertEqual(len(self.paths(events)), 7)
        with ws.Socket(self.server) as socket:
            socket.crawl("f", body["urls"], follow={"depth": 2})
            self.assertEqual(len(self.paths(socket.stream("f"))), 7)

    def test_a_maximum_of_pages_holds(self):
        for most in (1, 2, 4):
            self.assertEqual(len(self.found(depth=5, max_pages=most)), most)
        self.assertEqual(len(self.found("/", "/a", "/b", depth=5, max_pages=1)), 3, "what is asked for is fetched")

    def test_other_hosts_only_where_asked(self):
        self.assertEqual(self.found(same_host=False), {"/", "/a", "/b", self.site.other})

    def test_patterns(self):
        self.assertEqual(self.found(depth=3, include=["/a*"]), {"/", "/a", "/a1", "/a2"})
        self.assertEqual(self.found(depth=2, exclude=["*x=*", "/private/*"]), {"/", "/a", "/b", "/a1"})

    def test_what_pages_say_is_heeded(self):
        self.assertEqual(self.found("/nofollow", depth=3), {"/nofollow"})
        self.assertEqual(self.found("/rel", depth=3), {"/rel"})
        self.assertEqual(self.found("/moved", depth=3), {"/moved"}, "the page that it led to was fetched")
        chain = self.follow("/c1", "/canonical", options={"concurrency": 1}, depth=2)
        self.assertEqual(set(self.paths(chain, begins=2).values()), {"/c1", "/canonical"}, "/c2 is /c1's other name")

    def test_what_a_response_says_of_its_page_is_heeded(self):
        """X-Robots-Tag, for everybody and for one crawler; from the cache as well."""
        cached = {"cache_mode": "read_through"}
        for _ in range(2):
            for name in ("none", "nofollow", "ours"):
                self.assertEqual(self.found(f"/tag-{name}", options=cached, depth=3), {f"/tag-{name}"})
            for name in ("noindex", "theirs"):
                both = {f"/tag-{name}", f"/tag-{name}-1"}
                self.assertEqual(self.found(f"/tag-{name}", options=cached, depth=3), both)
        again = self.follow("/tag-none", options=cached, depth=3)
        self.assertEqual(again[-1]["from_cache"], 1)
        other = self.follow("/tag-theirs", options={"user_agent": "OtherBot/2.0"}, depth=3)
        self.assertEqual(set(self.paths(other).values()), {"/tag-theirs"})

    def test_sitemaps(self):
        found = self.found("/lonely", depth=1, sitemap=True)
        self.assertEqual(found, {"/lonely", "/a", "/b", "/a3"})
        events = self.follow("/lonely", depth=1, sitemap=True, include=["/a3"])
        self.assertEqual(set(self.paths(events).values()), {"/lonely", "/a3"})
        told = next(event["discovered_from"] for event in events if event.get("index") == 1)
        self.assertEqual(told, self.site.url + "/two.xml.gz")

    def test_a_sitemap_that_is_too_long_is_not_read(self):
        """As it comes, and packed: what counts are the bytes that it unpacks to."""
        urls = [f"{self.site.url}/a", f"{self.site.url}/b"]
        named = "".join(f"<url><loc>{url}</loc></url>" for url in urls)
        # Nothing that packs so well that it is taken for a bomb.
        filler = random.Random(7).randbytes(SITEMAP_BYTES_MAX // 2).hex()
        fits = f"<urlset>{named}<!--{filler[300:]}--></urlset>".encode()
        long = f"<urlset>{named}<!--{filler}--></urlset>".encode()
        for body, found in [(fits, {"/lonely", "/a", "/b"}), (long, {"/lonely"})]:
            for sent in (body, gzip.compress(body)):
                self.site.files["/index.xml"] = (200, "application/xml", sent)
                self.addCleanup(self.site.files.update, self.site.pages())
                self.assertEqual(self.found("/lonely", depth=1, sitemap=True), found, len(sent))

    def test_so_many_sitemaps_of_a_host_are_read(self):
        count = SITEMAP_FILES_MAX + 9
        names = [f"/many-{n}.xml" for n in range(count)]
        index = "".join(f"<sitemap><loc>{self.site.url}{name}</loc></sitemap>" for name in names)
        self.site.files["/index.xml"] = (200, "application/xml", f"<sitemapindex>{index}</sitemapindex>")
        self.addCleanup(self.site.files.update, self.site.pages())
        for n, name in enumerate(names):
            page = f"<urlset><url><loc>{self.site.url}/page-{n}</loc></url></urlset>"
            self.site.files[name] = (200, "text/xml", page)
        self.site.asked.clear()
        found = self.found("/lonely", depth=1, sitemap=True)
        # The index is one of them.
        self.assertEqual(len(found), 1 + SITEMAP_FILES_MAX - 1)
        read = [path for path in self.site.asked if path.endswith(".xml")]
        self.assertEqual((len(read), len(set(read))), (SITEMAP_FILES_MAX, SITEMAP_FILES_MAX))

    def test_so_many_hosts_have_their_sitemaps_read(self):
        sites = [Site() for _ in range(SITEMAP_HOSTS_MAX + 2)]
        for site in sites:
            self.addCleanup(site.close)
        urls = [site.url + "/lonely" for site in sites]
        _, events = stream(self.server, urls, follow={"sitemap": True, "same_host": True}, cache_mode="bypass")
        self.assertEqual(invariants.broken(events, events[-1]["total_urls"], begins=len(urls)), [])
        asked = ["/index.xml" in site.asked for site in sites]
        self.assertEqual(asked, [True] * SITEMAP_HOSTS_MAX + [False] * 2)

    def test_traps_end(self):
        calendar = self.found("/calendar?day=0", depth=20, max_pages=900)
        self.assertLessEqual(len(calendar), 60)
        deep = self.found("/deep", depth=20, max_pages=900)
        self.assertLess(len(deep), 60)

    def test_a_cancel_ends_it(self):
        with ws.Socket(self.server) as socket:
            socket.crawl("f", [self.site.url + "/calendar?day=0"], follow={"depth": 20, "max_pages": 500}, concurrency=1)
            socket.results("f", 2)
            socket.op("cancel", id="f")
            events = socket.stream("f")
        self.assertEqual((events[-1]["type"], events[-1]["status"]), ("summary", "cancelled"))

    def test_a_deepsearch_may_follow_its_hits(self):
        urls = [self.site.url + "/a1", self.site.url + "/a2"]
        ask(self.server, "POST", "/crawl", {"urls": urls})
        body = {"query": "A1", "limit": 1, "options": {"follow": {"depth": 1}}}
        def search():
            answer = ask(self.server, "POST", "/deepsearch", body).json()
            return answer if answer["search"]["urls_found"] == 1 else None
        whole = server.wait_until(search)
        events = [whole["metadata"], whole["search"], *whole["results"], whole["summary"]]
        self.assertEqual(invariants.broken(events, 2, begins=0), [])
        self.assertEqual([("search" in part, "discovered_from" in part) for part in whole["results"]],
                         [(True, False), (False, True)])

    def test_what_says_noindex_is_crawled_and_not_found(self):
        tagged = [self.site.url + f"/tag-{name}" for name in ("none", "ours", "noindex", "nofollow", "theirs")]
        answer = ask(self.server, "POST", "/crawl", {"urls": [self.site.url + "/nofollow", *tagged, self.site.url + "/a3"]})
        self.assertEqual(answer.json()["summary"]["successful"], 7)
        hits = lambda query: ask(self.server, "POST", "/deepsearch", {"query": query, "include_content": False}).json()
        urls = lambda query: [part["result"]["url"] for part in hits(query)["results"]]
        self.assertTrue(server.wait_until(lambda: self.site.url + "/a3" in urls("A3")))
        self.assertNotIn(self.site.url + "/nofollow", urls("No weir water"))
        self.assertTrue(server.wait_until(lambda: set(tagged[3:]) <= set(urls("Tag nofollow theirs"))))
        self.assertFalse(set(tagged[:3]) & set(urls("Tag noindex none ours")))

    def test_bounds_are_checked_first(self):
        for follow, field in [({"depth": 0}, "options.follow.depth"), ({"depth": 21}, "options.follow.depth"),
                              ({"max_pages": 0}, "options.follow.max_pages"),
                              ({"include": ["x" * 257]}, "options.follow.include"),
                              ({"exclude": ["x"] * 33}, "options.follow.exclude"),
                              ({"include": [""]}, "options.follow.include"), ({"hops": 1}, "hops")]:
            refused = ask(self.server, "POST", "/crawl", {"urls": [self.site.url], "options": {"follow": follow}})
            self.assertEqual(refused.status, 400, follow)
            self.assertEqual(refused.json()["error"]["details"][0]["field"], field)
        body = {"query": "q", "include_content": False, "options": {"follow": {}}}
        self.assertEqual(ask(self.server, "POST", "/deepsearch", body).status, 400)
