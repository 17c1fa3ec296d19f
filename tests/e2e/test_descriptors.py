"""Few descriptors: the soft limit is raised, and where there are too few for all, fetching leaves enough for
clients."""

import re
import threading
import unittest

import server
from client import Connection, ask, request
from test_access import Folder

FEW = 256
STREAMS = 4


class Descriptors(Folder):
    def limited(self, limits, *flags):
        """A server under `ulimit`."""
        shell = f'ulimit {limits} && exec "$0" "$@"'
        command = ["sh", "-c", shell, server.FOREBAY, *server.SERVE, "--cores", "2", *flags]
        running = server.Process(command)
        self.addCleanup(running.kill)
        self.assertTrue(server.wait_until(lambda: ask(running, "GET", "/readyz").status == 200, 60))
        return running

    def open_files(self, running):
        with open(f"/proc/{running.child.pid}/limits", encoding="ascii") as limits:
            return re.search(r"Max open files\s+(\S+)\s+(\S+)", limits.read()).groups()

    def test_the_soft_limit_is_raised_to_the_hard_one(self):
        running = self.limited("-Sn 200")
        soft, hard = self.open_files(running)
        self.assertEqual(soft, hard)
        self.assertNotEqual(soft, "200")

    def test_streams_leave_descriptors_for_clients(self):
        wide = ("--fetch-host-concurrency", "10000", "--fetch-address-concurrency", "10000", "--cache-bytes-max", "0")
        running = self.limited(f"-n {FEW}", *wide)
        self.assertEqual(self.open_files(running)[0], str(FEW))
        self.assertIn("server.connections_max", running.output())
        _, origin = server.shared()
        ended = []

        def stream(n):
            urls = [origin.page(1000 * n + at, latency="300ms") for at in range(256)]
            options = {"concurrency": 256, "robots": "ignore", "timeout_ms": 120000, "deadline_ms": 120000}
            with Connection(running.address) as connection:
                connection.socket.settimeout(120)
                connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": options}))
                ended.append(list(connection.read_lines(connection.read_head()))[-1])

        threads = [threading.Thread(target=stream, args=(n,), daemon=True) for n in range(STREAMS)]
        for thread in threads:
            thread.start()
        asked = most = 0
        while any(thread.is_alive() for thread in threads):
            self.assertEqual(ask(running, "GET", "/livez").status, 200)
            asked, most = asked + 1, max(most, running.descriptors())
        print(f"{asked} clients were answered meanwhile; at most {most} of {FEW} descriptors were open")
        self.assertEqual(len(ended), STREAMS)
        for line in ended:
            self.assertIn(b'"successful":256', line)
        self.assertNotIn("can't accept", running.output())
        self.assertGreater(asked, 5)


if __name__ == "__main__":
    unittest.main()
