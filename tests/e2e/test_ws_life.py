"""A WebSocket's life beside its streams: pings, the closing handshake, the server's end, what is left."""

import struct
import threading
import time
import unittest

import client
import server
from test_ws import Sockets
from websockets.exceptions import ConnectionClosed
from ws import Raw, Socket


class Life(Sockets):
    def test_a_silent_client_is_pinged_and_cut(self):
        with server.Server(ws_ping_interval_ms=150) as quick:
            with Raw(quick) as raw:
                self.assertEqual(raw.read()[0], 9)
                self.assertEqual(raw.read()[0], 9)
                self.assertTrue(raw.connection.cut_within(5))
            with Raw(quick) as raw:
                for _ in range(6):
                    opcode, payload = raw.read()
                    self.assertEqual(opcode, 9)
                    raw.send(payload, 0x8A)

    def test_closing_handshakes(self):
        with Raw(self.server) as raw:
            raw.send(struct.pack("!H", 1000) + b"bye", 0x88)
            self.assertEqual(raw.read(), (8, struct.pack("!H", 1000)))
            self.assertTrue(raw.connection.cut_within(10))
        with Raw(self.server) as raw:
            raw.send(b"\xff", 0x81)
            opcode, payload = raw.read()
            self.assertEqual((opcode, payload[:2]), (8, struct.pack("!H", 1007)))
            self.assertTrue(raw.connection.cut_within(10))
        with Raw(self.server) as raw:
            raw.connection.send(b"\x81\x02{}")  # not masked
            self.assertEqual(raw.read()[1][:2], struct.pack("!H", 1002))

    def test_a_peer_that_does_not_finish_the_closing_is_cut(self):
        with server.Server(ws_close_timeout_ms=200) as quick, Raw(quick) as raw:
            raw.send(struct.pack("!H", 1000), 0x88)
            self.assertEqual(raw.read()[0], 8)
            time.sleep(0.5)
            self.assertEqual(server.wait_until(lambda: opened(quick) == 0), True)

    def test_a_stopping_server_says_1001(self):
        with server.Server() as stopping:
            idle, busy = Socket(stopping), Socket(stopping)
            busy.crawl("a", [self.origin.page(0, latency="700ms")])
            busy.until("a", "metadata")
            stop = threading.Thread(target=stopping.stop)
            stop.start()
            with self.assertRaises(ConnectionClosed) as idle_end:
                idle.event()
            self.assertEqual(idle_end.exception.rcvd.code, 1001)
            self.assertEqual(busy.stream("a")[-1]["type"], "summary")
            with self.assertRaises(ConnectionClosed) as busy_end:
                busy.event()
            self.assertEqual(busy_end.exception.rcvd.code, 1001)
            stop.join(30)

    def test_nothing_is_left_behind(self):
        def open_now():
            return opened(self.server) == 0

        server.wait_until(open_now)
        before = self.server.descriptors()
        for n in range(30):
            socket = self.socket()
            socket.crawl("a", self.pages(2), resume_window_s=0)
            (socket.stream if n % 2 else lambda _: None)("a")
            (socket.cut if n % 3 else socket.connection.close)()
        self.assertTrue(server.wait_until(open_now))
        self.assertTrue(server.wait_until(lambda: self.server.descriptors() <= before + 20))


def opened(process):
    """WebSockets that are open, as the server counts them."""
    text = client.ask(process, "GET", "/metrics").body.decode()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("forebay_websockets_open ")))


if __name__ == "__main__":
    unittest.main()
