"""The binary from the command line: demo, crawl, extract, check, help, and how a server ends."""

import json
import subprocess
import unittest

import invariants
import server
from client import Connection, request

ALLOW = ["--egress-allow", "127.0.0.0/8"]


def forebay(*arguments, stdin=None, seconds=120):
    command = [server.FOREBAY, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=seconds)


class CommandLine(unittest.TestCase):
    def test_demo_shows_the_stream_and_ends_well(self):
        done = forebay("demo")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        text = (done.stdout + done.stderr).decode()
        for sign in ("/article", "/huge", "404", "too_many_redirects|blocked_egress", "p99"):
            self.assertTrue(any(part in text for part in sign.split("|")), f"no {sign} in:\n{text}")

    def test_crawl_prints_a_stream(self):
        _, origin = server.shared()
        good = forebay("crawl", *ALLOW, origin.page(1), origin.page(2))
        self.assertEqual(good.returncode, 0, good.stderr.decode())
        events = [json.loads(line) for line in good.stdout.splitlines()]
        self.assertEqual(invariants.broken(events, 2), [])
        bad = forebay("crawl", *ALLOW, origin.page(1), "http://10.0.0.1/")
        self.assertNotEqual(bad.returncode, 0)
        self.assertEqual(invariants.broken([json.loads(line) for line in bad.stdout.splitlines()], 2), [])
        self.assertNotEqual(forebay("crawl", "nonsense").returncode, 0)

    def test_extract_reads_a_file_or_stdin(self):
        done = forebay("extract", "-", stdin=b"<title>t</title><article><p>" + b"water and snow " * 50)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        answer = json.loads(done.stdout)
        self.assertEqual(answer.get("document", answer)["title"], "t")
        self.assertNotEqual(forebay("extract", "/nonexistent").returncode, 0)

    def test_check_and_help(self):
        self.assertEqual(forebay("check").returncode, 0)
        text = forebay("--help").stdout.decode()
        for command in ("serve", "demo", "crawl", "extract", "check"):
            self.assertIn(command, text)
        self.assertEqual(forebay("--odd").returncode, 2)


class Ending(unittest.TestCase):
    def test_sigterm_lets_what_is_in_flight_finish(self):
        _, origin = server.shared()
        running = server.Server()
        with Connection(running.address) as connection:
            body = {"urls": [origin.page(1, latency="700ms")]}
            connection.send(request("POST", "/crawl/stream", body))
            head = connection.read_head()
            running.child.terminate()
            events = [json.loads(line) for line in connection.read_lines(head)]
        self.assertEqual(invariants.broken(events, 1), [])
        # Another signal, as `stop` sends one to a server that is still there, would cut the end short.
        self.assertEqual(running.child.wait(server.STOP_S), 0)
        self.assertEqual(running.stop(), 0)
