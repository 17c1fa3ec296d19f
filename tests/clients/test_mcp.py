"""The reference client of the Model Context Protocol, in both of its eras."""

import json
import unittest
import urllib.error
import urllib.request

import anyio
import server
from mcp import Client

MODES = {"auto": "2026-07-28", "legacy": "2025-11-25"}


def post(running, message, **fields):
    """Status and JSON of one message, sent by hand."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    heads = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **more}
    request = urllib.request.Request(f"{running.url}/mcp", body, heads)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text) if text else None


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.running, cls.origin = server.shared()

    @classmethod
    def tearDownClass(cls):
        server.stop_shared()

    def with_client(self, mode, work):
        async def run():
            async with Client(f"{self.running.url}/mcp", mode=mode) as client:
                return await work(client)

        return anyio.run(run)

    def test_who_we_are_and_what_we_have(self):
        async def work(client):
            return client.protocol_version, client.server_info, (await client.list_tools()).tools

        for mode, version in MODES.items():
            with self.subTest(mode):
                spoken, info, tools = self.with_client(mode, work)
                self.assertEqual((spoken, info.name), (version, "forebay"))
                names = [tool.name for tool in tools]
                self.assertLessEqual({"crawl", "search", "extract"}, set(names))
                self.assertTrue(all(tool.description and tool.input_schema["properties"] for tool in tools))

    def test_crawl_tells_progress_and_gives_pages_in_order(self):
        urls = [self.origin.page(n, size=2000, latency=f"{80 - 20 * n}ms") for n in range(4)] + ["http://10.0.0.1/"]

        async def work(client):
            seen = []

            async def progress(done, total, message):
                seen.append((done, total, message))

            result = await client.call_tool("crawl", {"urls": urls}, progress_callback=progress)
            return seen, result

        for mode in MODES:
            with self.subTest(mode):
                seen, result = self.with_client(mode, work)
                self.assertEqual([done for done, _, _ in seen], [1, 2, 3, 4, 5])
                self.assertEqual({total for _, total, _ in seen}, {5})
                self.assertEqual({message for _, _, message in seen}, set(urls))
                self.assertFalse(result.is_error)
                self.assertEqual(len(result.content), 5)
                for url, block in zip(urls, result.content):
                    self.assertTrue(block.text.startswith(url))
                self.assertIn("blocked_egress", result.content[4].text)
                told = result.structured_content
                self.assertEqual([event["index"] for event in told["results"]], [0, 1, 2, 3, 4])
                self.assertEqual(told["summary"]["successful"], 4)
                self.assertIsNone(told["results"][0]["result"]["document"])

    def test_search_reads_what_it_finds(self):
        # The local index has what the server has fetched; it finds it about a second later.
        page = self.origin.page(870, size=3000)

        async def work(client):
            crawled = await client.call_tool("crawl", {"urls": [page]})
            words = " ".join(crawled.content[0].text.split("\n\n", 1)[1].split()[:4])
            seen = []

            async def progress(done, total, message):
                seen.append((done, total))

            for _ in range(100):
                seen.clear()
                found = await client.call_tool("search", {"query": words, "limit": 3}, progress_callback=progress)
                if any(block.text.startswith(page) for block in found.content):
                    break
                await anyio.sleep(0.1)
            empty = await client.call_tool("search", {"query": "zxqvbnonexistentword"})
            return found, seen, empty

        with server.Server() as running:
            for mode in MODES:
                with self.subTest(mode):

                    async def run():
                        async with Client(f"{running.url}/mcp", mode=mode) as client:
                            return await work(client)

                    found, seen, empty = anyio.run(run)
                    self.assertFalse(found.is_error)
                    hits = found.structured_content["search"]["urls_found"]
                    self.assertEqual(len(found.content), hits)
                    self.assertEqual(seen, [(done, hits) for done in range(hits + 1)])
                    first = found.structured_content["results"][0]
                    self.assertEqual((first["search"]["rank"], first["result"]["error"]), (1, None))
                    self.assertEqual((empty.is_error, len(empty.content)), (False, 1))

    def test_extract_and_what_tools_refuse(self):
        async def work(client):
            html = "<title>t</title><article><h1>Weir</h1><p>" + "Water \\ \"falls\" & rises. " * 40
            good = await client.call_tool("extract", {"html": html, "url": "https://a.example/"})
            bad = await client.call_tool("crawl", {"urls": ["ftp://a"]})
            return good, bad

        for mode in MODES:
            with self.subTest(mode):
                good, bad = self.with_client(mode, work)
                self.assertIn('"falls"', good.content[0].text)
                self.assertFalse(good.is_error)
                self.assertTrue(bad.is_error)
                self.assertIn("invalid_url", bad.content[0].text)

    def test_a_large_answer_is_cut_and_says_so(self):
        urls = [self.origin.page(n, size=400_000) for n in range(6)]

        async def work(client):
            return await client.call_tool("crawl", {"urls": urls})

        result = self.with_client("auto", work)
        text = [block.text for block in result.content]
        self.assertEqual(len(text), 6)
        self.assertTrue(any("cut off" in block for block in text))
        self.assertLess(sum(map(len, text)), 1_000_000)

    def test_messages_by_hand(self):
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        self.assertEqual(post(self.running, ask)[0], 200)
        self.assertEqual(post(self.running, {"jsonrpc": "2.0", "method": "notifications/initialized"}), (202, None))
        for body, status, code in [
            (b"{", 400, -32700),
            (b"[]", 400, -32600),
            (b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":' + b"[" * 200_000, 400, -32600),
            ({**ask, "id": None}, 400, -32600),
            ({**ask, "method": "tools/none"}, 200, -32601),
            ({**ask, "method": "tools/call", "params": {"name": "none"}}, 200, -32602),
        ]:
            found, answer = post(self.running, body)
            self.assertEqual((found, answer["error"]["code"]), (status, code), body)
        found, answer = post(self.running, ask, MCP_Protocol_Version="1900-01-01")
        self.assertEqual((found, answer["error"]["code"]), (400, -32022))
        self.assertIn("2026-07-28", answer["error"]["data"]["supported"])
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
        modern = {**ask, "params": {"_meta": meta}}
        version = {"MCP_Protocol_Version": "2026-07-28"}
        self.assertEqual(post(self.running, modern, **version)[1]["error"]["code"], -32020)
        self.assertEqual(post(self.running, modern, **version, Mcp_Method="tools/list")[0], 200)
        unknown = {**modern, "method": "resources/list"}
        self.assertEqual(post(self.running, unknown, **version, Mcp_Method="resources/list")[0], 404)

    def test_a_page_of_another_origin_is_refused(self):
        ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        self.assertEqual(post(self.running, ask, Origin="https://evil.example")[0], 403)
        self.assertEqual(post(self.running, ask, Origin=self.running.url)[0], 200)

    def test_closing_the_connection_ends_the_crawl(self):
        def running_streams():
            with urllib.request.urlopen(f"{self.running.url}/healthz", timeout=10) as answer:
                return json.load(answer)["streams_running"]

        async def work(client):
            with anyio.move_on_after(1.0):
                await client.call_tool("crawl", {"urls": [self.origin.at("/stall", at="head")]})

        self.assertEqual(running_streams(), 0)
        self.with_client("auto", work)
        self.assertTrue(server.wait_until(lambda: running_streams() == 0, 5))


if __name__ == "__main__":
    unittest.main()
