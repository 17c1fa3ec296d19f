"""Clients that mean harm, by the thousand. While each attack runs, a well-behaved client at another
address gets all its answers; afterwards the server has its descriptors back, and its memory. Both are
printed. At full size (TEST_FULL) they are twenty thousand; otherwise four times fewer, and with
TEST_QUICK twenty times.

What a first crowd of idle connections needed, the allocator keeps: memory is compared with what it
was after that crowd had gone.
"""

import collections
import json
import random
import select
import socket
import sys
import threading
import time
import unittest

import server
from client import Connection, request

ALONE = True  # it loads both cores

SCALE = 20 if server.QUICK else 1 if server.FULL else 4
FLOOD = 20_000 // SCALE
IDLE = 10_000 // SCALE
RESETS = 5_000 // SCALE
MUTATED = 6_000 // SCALE
SLOW = 1_000 // SCALE
SOURCES = [f"127.0.0.{n}" for n in range(2, 10)]
PER_SOURCE = 2_000  # what the server lets one address have
TCP_REPAIR = 19  # linux/tcp.h: a socket in repair mode closes without a word to its peer
PAGE = b"<title>t</title><p>" + b"water and snow " * 20
# What the whole suite may leave behind: pooled buffers, pages of the sandbox, histograms that have grown once,
# and what the allocator keeps of a flood of twice the first crowd's connections: 30 MiB once, and no more with
# each attack. A leak of 1 KiB a connection would be 20 MiB an attack.
KEPT_BYTES_MAX = 48 * 1024 * 1024


class Neighbour:
    """A client that does nothing wrong, over and over, until its block ends."""

    def __init__(self, running, origin):
        self.server, self.origin = running, origin
        self.done, self.failed = 0, []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stop.is_set() or self.done < 3:
            try:
                with Connection(self.server.address) as connection:
                    crawl = {"urls": [self.origin.page(self.done % 50)], "options": {"resume_window_s": 0}}
                    connection.send(request("GET", "/livez"))
                    assert connection.read_response().status == 200
                    connection.send(request("POST", "/extract", PAGE, ["Content-Type: text/html"]))
                    assert connection.read_response().status == 200
                    connection.send(request("POST", "/crawl/stream", crawl))
                    events = [json.loads(line) for line in connection.read_lines(connection.read_head())]
                    assert events[-1]["type"] == "summary" and events[-1]["successful"] == 1, events[-1]
                self.done += 1
            except Exception as error:  # whatever it is, it is the test's failure
                self.failed.append(repr(error))
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(120)
        if self.thread.is_alive():
            self.failed.append("hangs")


def dial(running, at):
    """A connection from one of the attackers' addresses; None where it was refused."""
    made = socket.socket()
    try:
        made.bind((SOURCES[at % len(SOURCES)], 0))
        made.settimeout(20)
        made.connect(running.address)
        return made
    except OSError:
        made.close()
        return None


def reset(made):
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    made.close()


def mib(count):
    return f"{count / 2**20:.1f} MiB"


def say(text):
    """Past unittest's buffer, so that it is seen when nothing fails."""
    print(f"\n   {text}", file=sys.__stdout__, flush=True)


def crowd(running):
    """Connections that say something once and then nothing; the server's descriptors with all of them."""
    opened = []

    def connect(n):
        made = dial(running, n)
        made.sendall(request("GET", "/livez"))
        while not made.recv(4096).endswith(b"ok\n"):
            pass
        opened.append(made)

    failed = in_threads(IDLE, connect)
    assert failed == [], failed
    descriptors = running.descriptors()
    time.sleep(1)
    for made in opened:
        made.close()
    return descriptors


def in_threads(count, work):
    """Calls work(n) for each n below count, from as many threads as there are sources."""
    failed = []

    def some(first):
        for n in range(first, count, len(SOURCES)):
            try:
                work(n)
            except Exception as error:
                failed.append(repr(error))
                return

    threads = [threading.Thread(target=some, args=(first,)) for first in range(len(SOURCES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def drip_until_cut(opened, byte, seconds=60):
    """Sends a byte on each connection again and again; those left that were not cut."""
    end = time.monotonic() + seconds
    while opened and time.monotonic() < end:
        left = []
        for made in opened:
            try:
                made.send(byte)
                left.append(made)
            except OSError:
                made.close()
        opened = left
        time.sleep(0.1)
    return opened


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        _, cls.origin = server.shared()
        flags = ["--limits-address-connections", str(PER_SOURCE)]
        short = {"head_timeout_ms": 2000, "body_timeout_ms": 2000, "write_stall_timeout_ms": 2000}
        cls.server = server.Server(*flags, idle_timeout_ms=60_000, cache_bytes_max=0, **short)
        with Neighbour(cls.server, cls.origin):
            pass
        cls.descriptors, start = cls.server.descriptors(), cls.server.memory_bytes()
        crowd(cls.server)
        server.wait_until(lambda: cls.server.descriptors() <= cls.descriptors + 8, 60)
        cls.memory = cls.server.memory_bytes()
        say(f"{IDLE} connections: resident {mib(start)} -> {mib(cls.memory)}")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def setUp(self):
        self.title = self.id().rsplit(".", 1)[1]

    def under(self, attack):
        """Runs an attack beside the neighbour; then everything is as it was."""
        before = self.server.descriptors()
        with Neighbour(self.server, self.origin) as neighbour:
            attack()
            peak, used = self.server.descriptors(), self.server.memory_bytes()
        self.assertEqual(neighbour.failed, [])
        back = lambda: self.server.descriptors() <= self.descriptors + 8
        self.assertTrue(server.wait_until(back, 60), f"{self.server.descriptors()} descriptors, first {self.descriptors}")
        # What a crowd's connections held goes back with the requests that follow.
        def kept():
            with Neighbour(self.server, self.origin) as later:
                pass
            self.assertEqual(later.failed, [])
            return self.server.memory_bytes() < self.memory + KEPT_BYTES_MAX

        is_back = server.wait_until(kept, 60)
        after = self.server.memory_bytes()
        say(f"{self.title}: descriptors {before} -> {peak} -> {self.server.descriptors()}, "
            f"resident {mib(self.memory)} -> {mib(used)} -> {mib(after)}, neighbour's rounds {neighbour.done}")
        self.assertTrue(is_back, f"{mib(after)} resident, {mib(self.memory)} at first")

    def test_slowloris(self):
        def attack():
            opened = [made for n in range(SLOW) if (made := dial(self.server, n))]
            for made in opened:
                made.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nA: ")
            self.assertEqual(drip_until_cut(opened, b"b"), [])

        self.under(attack)

    def test_slow_body(self):
        def attack():
            opened = [made for n in range(SLOW) if (made := dial(self.server, n))]
            head = b"POST /extract HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n"
            for made in opened:
                made.send(head)
            self.assertEqual(drip_until_cut(opened, b"b"), [])

        self.under(attack)

    def test_slow_read(self):
        def attack():
            opened = []
            for n in range(5 if server.QUICK else 16):  # each takes megabytes into its socket first
                made = dial(self.server, n)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                made.setblocking(False)
                opened.append(made)
            batch = request("GET", "/metrics") * 100
            poll = select.poll()
            for made in opened:
                poll.register(made, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
            cut, end = set(), time.monotonic() + 240
            while len(cut) < len(opened) and time.monotonic() < end:
                for made in opened:
                    try:
                        made.send(batch)
                    except BlockingIOError:
                        pass
                    except OSError:
                        cut.add(made.fileno())
                cut |= {number for number, _ in poll.poll(200)}
            self.assertEqual(len(cut), len(opened))
            for made in opened:
                made.close()

        self.under(attack)

    def test_connection_flood(self):
        seen = collections.Counter()

        def attack():
            held = [collections.deque() for _ in SOURCES]

            def connect(n):
                mine = held[n % len(SOURCES)]
                if made := dial(self.server, n):
                    mine.append(made)
                seen["made" if made else "refused"] += 1
                # Some are held for long, some are thrown away, some with a reset.
                while len(mine) > FLOOD // 20:
                    (reset if n % 2 else socket.socket.close)(mine.popleft())

            self.assertEqual(in_threads(FLOOD, connect), [])
            for mine in held:
                for made in mine:
                    made.close()

        self.under(attack)
        self.assertEqual(sum(seen.values()), FLOOD)

    def test_idle(self):
        def attack():
            self.assertGreaterEqual(crowd(self.server), IDLE)

        self.under(attack)

    def test_resets(self):
        wire = request("POST", "/extract", PAGE, ["Content-Type: text/html"])

        def attack():
            def connect(n):
                if made := dial(self.server, n):
                    made.send(wire[: n % (len(wire) + 1)])
                    reset(made)

            self.assertEqual(in_threads(RESETS, connect), [])

        self.under(attack)

    def test_half_open(self):
        """Peers that vanish without a word, and peers that only ever close their half."""

        def attack():
            vanished = 0
            for n in range(SLOW):
                made = dial(self.server, n)
                made.sendall(request("GET", "/livez")[: n % 60])
                if n % 2:
                    made.shutdown(socket.SHUT_WR)
                    self.addCleanup(made.close)
                    continue
                try:
                    made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
                    vanished += 1
                except PermissionError:
                    pass  # needs CAP_NET_ADMIN; the others are half open all the same
                made.close()
            self.vanished = vanished

        self.under(attack)

    def test_mutated_requests(self):
        seeds = [
            request("GET", "/livez"),
            request("GET", "/latency?window=10s&format=hgrm"),
            request("OPTIONS", "*"),
            request("POST", "/extract", PAGE, ["Content-Type: text/html; charset=utf-8"]),
            request("POST", "/crawl", {"urls": ["http://127.0.0.1:1/"], "options": {"concurrency": 1}}),
            b"POST /extract HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n3;a=b\r\n<p>\r\n0\r\nA: b\r\n\r\n",
            request("GET", "/metrics", fields=["Authorization: Bearer fb_0", "Origin: http://a", "Expect: 100-continue"]),
        ]
        statuses = collections.Counter()

        def attack():
            def send(n):
                chance = random.Random(n)
                data = mutate(chance, seeds)
                made = dial(self.server, n)
                try:
                    made.sendall(data)
                    made.shutdown(socket.SHUT_WR)
                    answer = b""
                    while piece := made.recv(65536):
                        answer = (answer + piece)[:4096]
                    if answer:
                        assert answer.startswith(b"HTTP/1.1 "), (n, data, answer)
                    statuses[answer[9:12].decode()] += 1
                except (ConnectionResetError, BrokenPipeError):
                    statuses["reset"] += 1
                finally:
                    made.close()

            self.assertEqual(in_threads(MUTATED, send), [])

        self.under(attack)
        self.assertEqual(sum(statuses.values()), MUTATED)
        self.assertNotIn("500", statuses)
        self.assertGreater(statuses["400"], 0)
        self.assertGreater(statuses["200"], 0)


def mutate(chance, seeds):
    """One or two requests with a few bytes changed, doubled, cut out or moved."""
    data = bytearray(b"".join(chance.choices(seeds, k=chance.randint(1, 2))))
    spice = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
             b"Host: b\r\n", b"0\r\n\r\n", b"\xff", b"%00", b"GET / HTTP/1.1\r\n"]
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif kind == 1:
            data[at:at] = chance.choice(spice)
        elif kind == 2:
            del data[at : at + chance.randint(1, 20)]
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 40)]
        else:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
    return bytes(data)
