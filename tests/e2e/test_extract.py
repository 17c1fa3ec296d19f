"""`POST /extract`: HTML in, document out; charsets, links, hostile pages."""

import contextlib
import threading
import unittest

import server
from client import ask
from invariants import DOCUMENT

TEXT = "The water comes down from nine valleys and arrives at the intake in the middle of the night. "
PAGE = f"""<!DOCTYPE html><html lang="en"><head><title>Night water</title>
<meta name="author" content="Ilse Varn"><meta name="description" content="Nine valleys">
<meta property="og:site_name" content="Upstream"><meta property="og:image" content="/a.jpg">
<meta property="article:published_time" content="2025-05-18T06:30:00Z"></head>
<body><nav><a href="/menu">Menu entry</a></nav><article><h1>Night water</h1>
<p>{TEXT * 4}</p><h2>The pool</h2><p>{TEXT * 4} <a href="next?a=b#c">Next page</a></p>
<pre><code>gate --open 34</code></pre><ul><li>One gate</li><li>Two gates</li></ul></article>
<footer>Imprint and privacy</footer><script>var hidden = 1</script></body></html>"""


class Extract(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, _ = server.shared()

    def html(self, body, kind="text/html", query="?url=http://a.example/b/c"):
        return ask(self.server, "POST", "/extract" + query, body, [f"Content-Type: {kind}"])

    def document(self, *arguments, **options):
        response = self.html(*arguments, **options)
        self.assertEqual(response.status, 200, response)
        answer = response.json()
        self.assertLessEqual(DOCUMENT, set(answer["document"]))
        self.assertTrue(0.0 <= answer["quality_score"] <= 1.0)
        self.assertLessEqual({"extract_wait", "extract"}, set(answer["timings_us"]))
        return answer["document"]


class Documents(Extract):
    def test_every_field(self):
        document = self.document(PAGE.encode())
        self.assertEqual(document["title"], "Night water")
        self.assertEqual(document["byline"], "Ilse Varn")
        self.assertEqual(document["language"], "en")
        self.assertEqual(document["description"], "Nine valleys")
        self.assertEqual(document["site_name"], "Upstream")
        self.assertEqual(document["image"], "http://a.example/a.jpg")
        self.assertTrue(document["published"].startswith("2025-05-18"))
        self.assertIn("nine valleys", document["text"])
        self.assertIn("## The pool", document["markdown"])
        self.assertIn("gate --open 34", document["markdown"])
        for noise in ("Menu entry", "Imprint", "hidden"):
            self.assertNotIn(noise, document["text"])
        links = {link["href"]: link["text"] for link in document["links"]}
        self.assertEqual(links["http://a.example/b/next?a=b#c"], "Next page")
        words = len(document["text"].split())
        self.assertLess(abs(document["word_count"] - words), words / 10 + 5)

    def test_json_in_is_the_same(self):
        body = {"url": "http://a.example/b/c", "html": PAGE}
        response = ask(self.server, "POST", "/extract", body)
        self.assertEqual(response.status, 200, response)
        self.assertEqual(response.json()["url"], "http://a.example/b/c")
        self.assertEqual(response.json()["document"], self.document(PAGE.encode()))

    def test_charsets(self):
        text = "Снег тает в полдень, а вода приходит ночью. " * 20
        page = f"<html><head>%s<title>Вода</title></head><body><article><p>{text}</p></article></body></html>"
        meta = '<meta charset="windows-1251">'
        cases = [
            ("text/html; charset=utf-8", (page % "").encode()),
            ("text/html; charset=windows-1251", (page % "").encode("cp1251")),
            ("text/html", (page % meta).encode("cp1251")),
            ("text/html; charset=\"KOI8-R\"", (page % "").encode("koi8-r")),
            ("text/html", b"\xef\xbb\xbf" + (page % meta).encode()),
            ("text/html", (page % "").encode("utf-16")),
        ]
        for kind, body in cases:
            with self.subTest(kind, body=body[:12]):
                document = self.document(body, kind)
                self.assertEqual(document["title"], "Вода")
                self.assertIn("вода приходит ночью", document["text"])

    def test_a_better_page_scores_higher(self):
        good = self.html(PAGE.encode()).json()["quality_score"]
        poor = self.html(b"<a href=/a>a</a> <a href=/b>b</a>").json()["quality_score"]
        self.assertGreater(good, poor)

    def test_what_is_not_taken(self):
        for kind in ("application/pdf", "image/png", "multipart/form-data; boundary=a"):
            self.assertEqual(self.html(b"x", kind).status, 415, kind)
        self.assertEqual(self.html(b"<p>a", query="?url=nonsense").status, 400)
        self.assertEqual(self.html(b"<p>a", query="?odd=1").status, 400)
        self.assertEqual(ask(self.server, "POST", "/extract", {"html": 1}).status, 400)
        self.assertEqual(ask(self.server, "POST", "/extract", {"htlm": "x"}).status, 400)


HOSTILE = {
    "a megabyte of ampersands": b"<p>" + b"&" * 1_000_000,
    "100,000 nested divs": b"<div>" * 100_000,
    "100,000 formatting elements": b"<b><i><u>" * 33_000,
    "100,000 attributes": b"<p " + b" ".join(b"a%d=1" % n for n in range(100_000)) + b">x",
    "one attribute of a megabyte": b"<a href='" + b"x" * 1_000_000 + b"'>y</a>",
    "tables in tables": b"<table><tr><td>" * 20_000,
    "invalid UTF-8": b"<p>" + bytes(range(128, 256)) * 4000,
    "NUL bytes": b"<p>" + b"\0" * 500_000,
    "unclosed comment": b"<!--" + b"-" * 500_000,
    "unclosed script": b"<script>" + b"<" * 500_000,
    "nothing": b"",
    "white space": b" " * 500_000,
    "no markup": b"word " * 200_000,
    "links": b"<a href=/x>y</a>" * 60_000,
    "entities": b"&CounterClockwiseContourIntegral;" * 30_000,
}


class Hostile(Extract):
    """Costs its own request a document or an error with a right status, and nobody else anything."""

    def test_each_page(self):
        for name, body in HOSTILE.items():
            with self.subTest(name):
                # Where the machine is busy, the page before may still have the lane.
                told = server.wait_until(lambda: (one := self.html(body)).status != 503 and one, 120)
                self.assertTrue(told, f"{name}: nothing but 503")
                response = told
                self.assertIn(response.status, (200, 413, 422, 504), name)
                if response.status != 200:
                    self.assertTrue(response.json()["error"]["code"])
                self.assertEqual(ask(self.server, "GET", "/livez").status, 200)
        self.assertEqual(self.document(PAGE.encode())["title"], "Night water")

    def test_64_mebibytes_are_refused_or_done(self):
        """Over the limit: refused by its length, before a byte of it is sent."""
        fields = ["Content-Type: text/html", "Expect: 100-continue", f"Content-Length: {64 << 20}"]
        self.assertEqual(ask(self.server, "POST", "/extract", None, fields).status, 413)
        # Sent all the same, it costs nobody else anything.
        with contextlib.suppress(ConnectionError):
            self.html(b"<p>" + b"text " * (64 * 1024 * 1024 // 5))
        self.assertEqual(self.document(PAGE.encode())["title"], "Night water")

    def test_neighbours_are_served_meanwhile(self):
        crowd = [threading.Thread(target=self.html, args=(HOSTILE["100,000 nested divs"],)) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for _ in range(20):
            self.assertEqual(ask(self.server, "GET", "/livez").status, 200)
            self.assertEqual(self.document(PAGE.encode())["title"], "Night water")
        for thread in crowd:
            thread.join(120)

    def test_memory_is_given_back(self):
        for _ in range(3):
            self.html(HOSTILE["links"])
        before = self.server.memory_bytes()
        for _ in range(10):
            self.html(HOSTILE["links"])
        self.assertLess(self.server.memory_bytes(), before + 64 * 1024 * 1024)
