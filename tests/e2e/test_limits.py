"""A key's rates for all nodes that share a Redis; and each node for itself where Redis is away."""

import json
import os
import re
import shutil
import tempfile
import time
import unittest

import websockets.sync.client

import server
from client import ask
from redises import FIRST, PATIENT, Redis
from server import QUICK, Server, wait_until
from test_access import bearer, new_key

HTML = ["Content-Type: text/html"]
PAGE = b"<title>t</title><p>hello there, this is a page"
# What a node may not have heard of yet: as README says, what comes within a tenth of a second.
PAUSE_S = 0.12


class Together(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on two cores only: it is the same work again")
        self.origin = server.shared()[1]
        self.redis = Redis()
        self.addCleanup(self.redis.end)
        self.folder = tempfile.mkdtemp(prefix="forebay-limits-")
        self.addCleanup(shutil.rmtree, self.folder)

    def nodes(self, limits, *flags, count=2):
        """Nodes with one key, and its field."""
        self.key, entry = new_key("one", "crawl,extract,metrics", limits)
        path = os.path.join(self.folder, "keys.toml")
        with open(path, "w", encoding="utf-8") as file:
            # The other one is for looking at the nodes.
            self.watcher, watching = new_key("watcher", "metrics")
            file.write(entry + watching)
        flags = flags or PATIENT
        nodes = [Server("--redis-url", self.redis.url, "--auth-keys-file", path, *flags) for _ in range(count)]
        for each in nodes:
            self.addCleanup(each.kill)
            self.assertTrue(wait_until(lambda: self.health(each)["state"] == "up"), each.output())
        return nodes

    def health(self, target):
        return ask(target, "GET", "/healthz", fields=[bearer(self.watcher)]).json()["redis"]

    def extract(self, target):
        return ask(target, "POST", "/extract", PAGE, [*HTML, bearer(self.key)])

    def test_requests_of_all_nodes_are_one_rate(self):
        nodes = self.nodes("requests_per_min = 12\n", count=3)
        began, allowed, last = time.monotonic(), 0, None
        for n in range(30):
            answer = self.extract(nodes[n % 3])
            self.assertIn(answer.status, (200, 429), answer)
            allowed += answer.status == 200
            if answer.status == 200:
                left = int(re.search(r'"key";r=(\d+)', answer.field("ratelimit")).group(1))
                # Never more than what all have left; a node may be behind by what it has not heard.
                self.assertLessEqual(left, 12 - allowed + 2)
            else:
                last = answer
            time.sleep(PAUSE_S / 3)
        earned = (time.monotonic() - began) / 5
        # Each for itself would have let 30 through; two may have come between news and news.
        self.assertGreaterEqual(allowed, 12)
        self.assertLessEqual(allowed, 12 + earned + 2)
        self.assertEqual(last.json()["error"]["code"], "rate_limited")
        wait = int(last.field("retry-after"))
        self.assertTrue(1 <= wait <= 15, last)
        # Who waits for as long as it was told gets in, on any node.
        time.sleep(wait)
        self.assertEqual(self.extract(nodes[0]).status, 200)
        names = [name.decode() for name in self.redis.ask("KEYS", "forebay:limit:*")]
        self.assertEqual(len(names), 1)
        self.assertNotIn(self.key, names[0])
        self.assertTrue(0 < self.redis.ask("PTTL", names[0]) <= 75_000)

    def test_urls_and_bytes_of_all_nodes_are_one_rate(self):
        one, other = self.nodes("urls_per_min = 20\nbytes_per_min = 40000\n")
        crawl = lambda target, urls: ask(target, "POST", "/crawl", {"urls": urls, "options": FIRST}, [bearer(self.key)])  # noqa: E731
        urls = [self.origin.page(7000 + n, size=500) for n in range(15)]
        self.assertEqual(crawl(one, urls).status, 200)
        time.sleep(PAUSE_S)
        refused = crawl(other, urls)
        self.assertEqual((refused.status, refused.json()["error"]["message"]), (429, "this key has used up its URLs"))
        self.assertTrue(20 <= int(refused.field("retry-after")) <= 30, refused)
        time.sleep(PAUSE_S)
        self.assertEqual(crawl(other, [self.origin.page(7020, size="60k")]).status, 200)
        time.sleep(PAUSE_S)
        refused = crawl(one, urls[:1])
        self.assertEqual((refused.status, refused.json()["error"]["message"]), (429, "this key has used up its bytes"))

    def test_a_redis_that_stands_still_costs_no_request_its_answer(self):
        one, other = self.nodes("requests_per_min = 100\n", "--redis-timeout-ms", "500")
        for n in range(10):
            self.assertEqual(self.extract((one, other)[n % 2]).status, 200)
            time.sleep(PAUSE_S)
        self.redis.pause()
        try:
            slowest = 0
            for n in range(40):
                began = time.monotonic()
                answer = self.extract((one, other)[n % 2])
                slowest = max(slowest, time.monotonic() - began)
                self.assertEqual(answer.status, 200, answer)
            self.assertTrue(wait_until(lambda: self.health(one)["state"] == "down", 20))
            # Each node goes by its own count: what it knew, and what it has let through since.
            allowed = sum(self.extract(one).status == 200 for _ in range(120))
            self.assertTrue(60 <= allowed < 120, allowed)
        finally:
            self.redis.go_on()
        self.assertTrue(wait_until(lambda: self.health(one)["state"] == "up", 20))
        print(f"slowest answer while Redis stood still: {slowest * 1000:.0f} ms")
        self.assertEqual(self.extract(other).status, 200)

    def test_a_websocket_counts_with_the_others(self):
        one, other = self.nodes("urls_per_min = 10\n")
        self.assertEqual(ask(one, "POST", "/crawl", {"urls": [self.origin.page(7100 + n) for n in range(8)],
                                                     "options": FIRST}, [bearer(self.key)]).status, 200)
        url = f"ws://{other.host}:{other.port}/crawl/ws"
        with websockets.sync.client.connect(url, subprotocols=["crawl.v1"],
                                            additional_headers={"X-API-Key": self.key}) as socket:
            time.sleep(PAUSE_S)
            op = {"op": "crawl", "id": "a", "data": {"urls": [self.origin.page(7110 + n) for n in range(5)], "options": FIRST}}
            socket.send(json.dumps(op))
            event = json.loads(socket.recv(20))
            self.assertEqual((event["type"], event["error"]["code"]), ("error", "rate_limited"), event)


if __name__ == "__main__":
    unittest.main()
