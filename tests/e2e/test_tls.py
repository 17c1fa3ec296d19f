"""TLS on the listener: curl and Python's ssl against it, certificates read again, hostile handshakes."""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

import websockets.sync.client

import invariants
import server
from client import Connection, curl, request

PAGE = b"<title>t</title><p>" + b"water and snow " * 100


def certificate(folder, name):
    """A self-signed certificate for 127.0.0.1 under fixed file names, as a renewal leaves it."""
    pem = {"key": os.path.join(folder, "key.pem"), "cert": os.path.join(folder, "cert.pem")}
    made = {part: path + ".new" for part, path in pem.items()}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", made["key"], "-out", made["cert"]],
        check=True, capture_output=True, timeout=60)
    for part, path in pem.items():
        os.replace(made[part], path)
    return pem["cert"], pem["key"]


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="forebay-")
        cls.cert, cls.key = certificate(cls.folder, "first")
        flags = ["--tls-cert", cls.cert, "--tls-key", cls.key, "--tls-handshake-timeout-ms", "1000"]
        cls.server = server.Server(*flags, head_timeout_ms=2000, idle_timeout_ms=5000, write_stall_timeout_ms=2000)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0
        shutil.rmtree(cls.folder)

    def context(self, **settings):
        context = ssl.create_default_context(cafile=self.cert)
        for name, value in settings.items():
            setattr(context, name, value)
        return context

    def connect(self, **settings):
        """A `Connection` whose bytes go through TLS."""
        connection = Connection(self.server.address)
        connection.socket = self.context(**settings).wrap_socket(connection.socket, server_hostname="127.0.0.1")
        return connection

    def test_curl_with_each_version(self):
        trusted = ["--cacert", self.cert, "--fail"]
        for version in (["--tlsv1.3"], ["--tls-max", "1.2"], ["--http1.1"], ["--http2"]):
            self.assertEqual(curl(*trusted, *version, self.server.url + "/livez"), b"ok\n", version)
        done = subprocess.run(["curl", "-s", *trusted, "--tls-max", "1.1", self.server.url + "/livez"], check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_alpn_says_http_1(self):
        context = self.context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with Connection(self.server.address) as connection:
            secure = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
            self.assertEqual(secure.selected_alpn_protocol(), "http/1.1")
            secure.close()

    def test_a_stream(self):
        _, origin = server.shared()
        urls = [origin.page(n) for n in range(20)]
        body = json.dumps({"urls": urls})
        out = curl("--cacert", self.cert, "-H", "Content-Type: application/json", "-d", body, self.server.url + "/crawl/stream")
        self.assertEqual(invariants.broken([json.loads(line) for line in out.splitlines()], len(urls)), [])

    def test_a_websocket(self):
        _, origin = server.shared()
        url = self.server.url.replace("https", "wss") + "/crawl/ws"
        with websockets.sync.client.connect(url, ssl=self.context(), subprotocols=["crawl.v1"]) as socket_:
            urls = [origin.page(n) for n in range(5)]
            socket_.send(json.dumps({"op": "crawl", "id": "a", "data": {"urls": urls}}))
            events = []
            while not events or events[-1]["type"] not in ("summary", "error"):
                events.append(json.loads(socket_.recv(timeout=60)))
        self.assertEqual(invariants.broken(events, len(urls)), [])

    def test_pipelines_large_bodies_and_the_end(self):
        large = PAGE + b"<p>" + b"snow " * 200_000
        with self.connect() as connection:
            fields = ["Content-Type: text/html"]
            connection.send(request("GET", "/livez") * 3 + request("POST", "/extract", large, fields))
            self.assertEqual([connection.read_response().status for _ in range(4)], [200] * 4)
            connection.drip(request("GET", "/livez", fields=["Connection: close"]))
            self.assertEqual(connection.read_response().status, 200)
            # An end without close_notify would be an error of ssl's.
            self.assertTrue(connection.ended())

    def test_records_in_pieces(self):
        """Ciphertext that comes a byte at a time, and two requests in one record."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = self.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with Connection(self.server.address) as connection:

            def drive(step):
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        connection.drip(outgoing.read())
                        data = connection.socket.recv(65536)
                        self.assertTrue(data, "ended")
                        incoming.write(data)

            drive(session.do_handshake)
            session.write(request("GET", "/livez") * 2)
            connection.drip(outgoing.read())
            answers = b""
            while answers.count(b"ok\n") < 2:
                answers += drive(lambda: session.read(65536))
            self.assertEqual(answers.count(b"HTTP/1.1 200"), 2)
            # Half a record and then silence: it is idle as long as no byte of a head is there.
            session.write(request("GET", "/livez"))
            connection.send(outgoing.read()[:20])
            self.assertTrue(connection.cut_within(60), "half a record holds the connection")

    def test_the_certificate_is_read_again_on_sighup(self):
        def shown():
            with self.connect(check_hostname=False, verify_mode=ssl.CERT_NONE) as connection:
                return hashlib.sha256(connection.socket.getpeercert(binary_form=True)).hexdigest()

        before = shown()
        with self.connect() as kept:
            with open(self.key, "a", encoding="ascii") as file:
                file.truncate(10)
            self.server.child.send_signal(signal.SIGHUP)
            self.assertTrue(server.wait_until(lambda: "certificate stays as it was" in self.server.output()))
            self.assertEqual(shown(), before)
            certificate(self.folder, "second")
            self.server.child.send_signal(signal.SIGHUP)
            self.assertTrue(server.wait_until(lambda: shown() != before))
            kept.send(request("GET", "/livez"))
            self.assertEqual(kept.read_response().status, 200)
        self.assertEqual(curl("--cacert", self.cert, "--fail", self.server.url + "/livez"), b"ok\n")

    def test_what_is_no_handshake_is_cut(self):
        before = self.server.descriptors()
        for data in (b"", b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(5000), b"\x16" * 70000):
            with Connection(self.server.address) as connection:
                try:
                    connection.send(data)
                except (ConnectionResetError, BrokenPipeError):
                    continue
                self.assertTrue(connection.cut_within(60), data[:20])
        for _ in range(50):
            connection = Connection(self.server.address)
            connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            connection.reset()
        self.assertTrue(server.wait_until(lambda: self.server.descriptors() <= before + 2))

    def test_a_client_that_never_reads_is_cut(self):
        connection = Connection(self.server.address, receive_buffer=4096)
        connection.socket = self.context().wrap_socket(connection.socket, server_hostname="127.0.0.1")
        with connection:
            connection.socket.settimeout(0.5)
            batch = request("GET", "/metrics") * 50
            try:
                for _ in range(10_000):
                    connection.socket.send(batch)
            except (TimeoutError, BrokenPipeError, ConnectionResetError, ssl.SSLError):
                pass
            self.assertTrue(connection.cut_within(30), "still open")

    def test_an_unannounced_end_in_a_body_is_no_request(self):
        with self.connect() as connection:
            connection.send(request("POST", "/extract", PAGE, ["Content-Type: text/html"])[:-50])
            connection.socket.unwrap = None
            connection.socket.shutdown(socket.SHUT_WR)
            time.sleep(0)
            self.assertTrue(connection.cut_within(60))


class Plain(unittest.TestCase):
    def test_a_certificate_needs_its_key(self):
        command = [server.FOREBAY, "check", "--tls-cert", "/nonexistent"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"go together", done.stderr)
