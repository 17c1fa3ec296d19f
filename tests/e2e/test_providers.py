"""What each search provider is sent and how its documented answer is read: page after page, in the words that it
knows, and without taking a client's mistake for its own trouble."""

import json
import unittest
import urllib.parse

import invariants
import server
import ws
from client import ask
from providers import KEY, Provider, Searching, brave, events_of, recorded, search_event, searxng, serper


def rows(*numbers):
    return [(f"http://hits.test/{n}", f"Hit {n}", f"Text {n}") for n in numbers]


class Paged(Searching):
    """What all providers have in common."""

    def found(self, limit, **body):
        """URLs by rank; nothing is fetched."""
        events = self.search(include_content=False, limit=limit, **body)
        hits = [event for event in events if event["type"] == "result"]
        self.assertEqual(invariants.broken(events, len(hits), begins=0), [])
        self.assertEqual(search_event(events)["urls_found"], len(hits))
        return {event["search"]["rank"]: event["result"]["url"] for event in hits}

    def queries(self):
        return [dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query)) for _, path, _, _ in self.provider.asked]

    def reads_its_documented_answer(self, titles, texts):
        self.provider.says(recorded(self.name, self.origin.url))
        events = self.search()
        self.assertEqual(invariants.broken(events, 3, begins=0), [])
        hits = sorted((event["search"]["rank"], event["result"]["url"], event["search"]["title"],
                       event["search"]["snippet"]) for event in events if event["type"] == "result")
        urls = [self.origin.page(n) for n in (1, 2, 3)]
        self.assertEqual(hits, list(zip((1, 2, 3), urls, titles, texts)))
        for event in events:
            if event["type"] == "result":
                self.assertTrue(event["result"]["document"]["text"])


TITLES = ["The old weirs of the upper river", "How a weir works", "Weir repairs: what an owner has to know"]
REPAIRS = "Permits, fish passes and the season in which stones may be moved."


class Searxng(Paged):
    def test_its_documented_answer_is_read(self):
        first = "Seven old weirs still hold the upper river back, each built for a mill that is gone."
        second = "Water rises behind the crest, and what flows over it can be measured: Q = C·b·h^1.5 for a sharp edge & a free fall."
        self.reads_its_documented_answer(TITLES, [first + " A walk along them takes four hours.", second, REPAIRS])

    def test_pages_are_asked_for_until_the_limit(self):
        self.provider.says(searxng(rows(*range(12))))
        self.provider.then(searxng(rows(10, 11, *range(12, 22))))
        self.provider.then(searxng(rows(*range(22, 40))))
        found = self.found(30)
        self.assertEqual(sorted(found.values()), sorted(url for url, _, _ in rows(*range(30))))
        # 10 and 11 came twice: whatever is behind them stands where the provider has put it.
        self.assertEqual([found[n] for n in (1, 12, 15, 32)], [f"http://hits.test/{n}" for n in (0, 11, 12, 29)])
        self.assertEqual([query.get("pageno") for query in self.queries()], [None, "2", "3"])
        self.assertEqual({query["q"] for query in self.queries()}, {"old weirs"})

    def test_a_page_with_nothing_new_is_the_last(self):
        for last in ([], rows(3, 2, 1)):
            self.provider.asked.clear()
            self.provider.says(searxng(rows(1, 2, 3)))
            self.provider.then(searxng(last))
            self.assertEqual(len(self.found(100)), 3)
            self.assertEqual(len(self.provider.asked), 2)

    def test_ten_hits_are_one_question(self):
        self.provider.says(searxng(rows(1, 2, 3)))
        self.assertEqual(len(self.found(10)), 3)
        self.assertEqual(len(self.provider.asked), 1)

    def test_what_has_come_counts_where_a_later_page_fails(self):
        self.provider.says(searxng(rows(1, 2, 3)))
        self.provider.then(b"", 500)
        self.assertEqual(len(self.found(30)), 3)
        self.assertEqual(len(self.provider.asked), 2)

    def test_languages_are_put_as_it_knows_them(self):
        self.provider.says(searxng(rows(1)))
        for locale, country, sent in [("zh-Hant", None, "zh-TW"), ("EN", "uk", "en-GB"), ("sr-Latn", None, "sr")]:
            self.provider.asked.clear()
            self.found(1, locale=locale, **({"country": country} if country else {}))
            self.assertEqual(self.queries()[0]["language"], sent)

    def test_no_query_asks_for_a_redirect(self):
        self.provider.says(searxng(rows(1)))
        self.found(1, query="!!g old !! weirs")
        self.assertEqual(self.queries()[0]["q"], "old weirs")


class Serper(Paged):
    name = "serper"

    def test_its_documented_answer_is_read(self):
        titles = [TITLES[0], TITLES[1] + " - Questions", TITLES[2]]
        first = "Seven old weirs still hold the upper river back, each built for a mill that is gone ..."
        second = "Water rises behind the crest, and what flows over it can be measured."
        self.reads_its_documented_answer(titles, [first, second, REPAIRS])

    def test_pages_are_asked_for_until_the_limit(self):
        self.provider.says(serper(rows(*range(10))))
        self.provider.then(serper(rows(*range(10, 20))))
        self.provider.then(serper(rows(*range(20, 30))))
        self.assertEqual(len(self.found(25)), 25)
        bodies = [json.loads(body) for _, _, _, body in self.provider.asked]
        self.assertEqual([(body["num"], body.get("page")) for body in bodies], [(25, None), (25, 2), (25, 3)])


class Brave(Paged):
    name = "brave"

    def test_its_documented_answer_is_read(self):
        first = "Seven old weirs still hold the upper river back, each built for a mill that is gone & forgotten."
        second = "Water rises behind the crest; when h < 3 cm it clings to the stone."
        self.reads_its_documented_answer(TITLES, [first, second, REPAIRS])

    def test_pages_are_asked_for_until_the_limit(self):
        self.provider.says(brave(rows(*range(20))))
        self.provider.then(brave(rows(*range(20, 40))))
        self.provider.then(brave(rows(*range(40, 60))))
        self.assertEqual(len(self.found(50)), 50)
        asked = [(query["count"], query.get("offset")) for query in self.queries()]
        self.assertEqual(asked, [("20", None), ("20", "1"), ("20", "2")])

    def test_it_says_itself_that_there_is_no_more(self):
        self.provider.says(brave(rows(1, 2, 3), more=False))
        self.assertEqual(len(self.found(100)), 3)
        self.assertEqual(len(self.provider.asked), 1)

    def test_its_last_page_is_the_tenth(self):
        self.provider.says(brave(rows(0)))
        for n in range(1, 20):
            self.provider.then(brave(rows(n)))
        self.assertEqual(len(self.found(100)), 10)
        self.assertEqual(self.queries()[-1]["offset"], "9")

    def test_languages_and_countries_are_put_as_it_knows_them(self):
        self.provider.says(brave(rows(1)))
        for locale, country, sent in [("ja", "jp", ("jp", "JP")), ("pt", "br", ("pt-br", "BR")), ("zh", "cn", ("zh-hans", "CN")),
                                      ("en-GB", "uk", ("en-gb", "GB")), ("ka", "ge", (None, "ALL"))]:
            self.provider.asked.clear()
            self.found(1, locale=locale, country=country)
            query = self.queries()[0]
            self.assertEqual((query.get("search_lang"), query.get("country")), sent, locale)

    def test_a_query_that_is_too_long_for_it_is_the_clients(self):
        for query in ("weir " * 51, "w" * 401):
            refused = ask(self.server, "POST", "/deepsearch", {"query": query})
            error = refused.json()["error"]
            self.assertEqual((refused.status, error["code"], error["retryable"]), (400, "validation_error", False))
            self.assertEqual([detail["field"] for detail in error["details"]], ["query"])
            self.assertIn("400 characters and 50 words", error["message"])
        with ws.Socket(self.server) as socket:
            socket.op("deepsearch", id="s", data={"query": "w" * 401})
            error = socket.next("s")["error"]
            self.assertEqual((error["code"], error["status"]), ("validation_error", 400))
        self.assertEqual(self.provider.asked, [])


class Troubles(unittest.TestCase):
    """A server for each, because a breaker remembers."""

    def run_server(self, name, *flags):
        self.provider = Provider()
        self.addCleanup(self.provider.close)
        key = [] if name == "searxng" else ["--search-key", KEY]
        instance = server.Server("--search-provider", name, "--search-url", self.provider.url, *key, *flags)
        self.addCleanup(instance.stop)
        return instance

    def found(self, instance, **body):
        """How many hits a search has."""
        head, events = events_of(instance, {"query": "q", "include_content": False, **body})
        self.assertEqual(head.status, 200, head)
        return search_event(events)["urls_found"]

    def error(self, instance):
        head, events = events_of(instance, {"query": "q"})
        self.assertEqual((head.status, events[-1]["type"]), (200, "error"), events)
        self.assertEqual(invariants.broken(events, 0), [])
        return events[-1]["error"]

    def test_what_a_client_has_asked_wrongly_is_not_the_providers_fault(self):
        for name, status, answer, good in [
            ("brave", 422, "brave-invalid-query", brave), ("serper", 400, "serper-not-allowed", serper),
            ("searxng", 400, None, searxng), ("searxng", 414, None, searxng),
        ]:
            with self.subTest(name=name, status=status):
                instance = self.run_server(name)
                self.provider.says(recorded(answer) if answer else {"error": "Invalid value for parameter language"}, status)
                for _ in range(6):
                    error = self.error(instance)
                    self.assertEqual((error["code"], error["status"], error["retryable"]), ("validation_error", 400, False))
                    self.assertIn(str(status), error["message"])
                    self.assertNotIn("retry_after_ms", error)
                self.provider.says(good(rows(1)))
                self.assertEqual(self.found(instance), 1)

    def test_a_key_that_is_wrong_or_used_up_is_told_from_a_wrong_query(self):
        for name, status, answer in [("brave", 422, "brave-invalid-token"), ("serper", 400, "serper-no-credits")]:
            with self.subTest(name):
                instance = self.run_server(name)
                self.provider.says(recorded(answer), status)
                error = self.error(instance)
                self.assertEqual((error["code"], error["retryable"]), ("search_unavailable", True))
                self.assertEqual(ask(instance, "POST", "/deepsearch", {"query": "q"}).status, 503)
                self.assertEqual(len(self.provider.asked), 1)

    def test_each_page_counts_in_the_quota(self):
        instance = self.run_server("searxng", "--search-queries-per-min", "2")
        self.provider.says(searxng(rows(*range(10))))
        for n in range(1, 5):
            self.provider.then(searxng(rows(*range(10 * n, 10 * n + 10))))
        self.assertEqual((self.found(instance, limit=50), len(self.provider.asked)), (20, 2))
        self.assertEqual(ask(instance, "POST", "/deepsearch", {"query": "q"}).status, 503)

    def test_a_slow_later_page_is_not_waited_for_beyond_the_searchs_time(self):
        instance = self.run_server("searxng", "--search-timeout-ms", "1500")
        for _ in range(6):
            self.provider.asked.clear()
            self.provider.says(searxng(rows(1, 2)))
            self.provider.then(searxng(rows(3)), delay=6)
            self.assertEqual(self.found(instance, limit=50), 2, "five are not the provider's trouble")
