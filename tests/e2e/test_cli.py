"""The binary from the command line: demo, crawl, extract, check, help, and how a server ends."""

import fcntl
import http.server
import json
import os
import pty
import re
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import unittest

import invariants
import server
from client import Connection, request

ALLOW = ["--egress-allow", "127.0.0.0/8"]


def forebay(*arguments, stdin=None, seconds=120):
    command = [server.FOREBAY, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=seconds)


class HttpsOrigin:
    """One page by https, with a certificate by an authority of its own; `other` is one that has nothing to
    do with it."""

    def __init__(self, folder):
        made = lambda name: subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", *name],
            check=True, capture_output=True, timeout=60)
        path = lambda name: os.path.join(folder, name)
        for name in ("authority", "other"):
            made(["-subj", f"/CN={name}", "-keyout", path(name + ".key"), "-out", path(name)])
        made(["-subj", "/CN=origin", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
              "-CA", path("authority"), "-CAkey", path("authority.key"), "-keyout", path("key"), "-out", path("cert")])
        self.authority, self.other = path("authority"), path("other")

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = b"<title>t</title><article><p>" + b"water and snow " * 50
                self.send_response(200 if self.path == "/" else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path("cert"), path("key"))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The handshake is the connection's own thread's: one that fails is no reason to stop listening.
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_port
        self.url = f"https://127.0.0.1:{self.port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


class CommandLine(unittest.TestCase):
    CORES = (2,)  # commands, which take what the machine has

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
        self.assertEqual(good.stderr, b"", "no bar where nobody looks")

    def test_a_crawls_exit_status_tells(self):
        _, origin = server.shared()
        some = forebay("crawl", *ALLOW, origin.page(1), "http://10.0.0.1/")
        self.assertEqual(some.returncode, 1, "some have no document")
        self.assertEqual(invariants.broken([json.loads(line) for line in some.stdout.splitlines()], 2), [])
        late = forebay("crawl", *ALLOW, "--deadline-ms", "500", origin.at("/stall", at="head", for_="1h"))
        self.assertEqual(late.returncode, 1, "ended before it had one")
        refused = (["nonsense"], ["--timeout-ms", "0", origin.page(1)], ["--order", "any", origin.page(1)], [],
                   ["--egress-allow", "10.0.0.0/99", origin.page(1)], ["--stream-urls-max", "1", origin.page(1), origin.page(2)])
        for arguments in refused:
            done = forebay("crawl", *ALLOW, *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, b""), arguments)
            self.assertTrue(done.stderr, arguments)

    def test_a_bar_is_drawn_where_somebody_looks(self):
        _, origin = server.shared()
        urls = [origin.page(n, latency="300ms") for n in range(4)]
        terminal, own = pty.openpty()
        fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        command = [server.FOREBAY, "crawl", *ALLOW, "--concurrency", "1", *urls]
        with tempfile.TemporaryFile() as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=own)
            os.close(own)
            drawn = b""
            while True:
                try:
                    some = os.read(terminal, 65536)
                except OSError:
                    some = b""  # EIO: nobody has the other end any more
                if not some:
                    break
                drawn += some
            os.close(terminal)
            self.assertEqual(child.wait(60), 0)
            out.seek(0)
            events = [json.loads(line) for line in out]
        self.assertEqual(invariants.broken(events, 4), [], "the stream is undisturbed")
        text = drawn.decode()
        for sign in ("/4", urls[0].rpartition("?")[0]):
            self.assertIn(sign, text)
        counts = [int(n) for n in re.findall(r"\b(\d)/4\b", text)]
        self.assertEqual(counts, sorted(counts))
        self.assertGreater(counts[-1], 0)
        # It is taken away at the end: its line is cleared, and nothing follows.
        self.assertRegex(text, r"\x1b\[2K\s*$")

    def test_whom_the_platform_trusts_is_trusted(self):
        with tempfile.TemporaryDirectory() as folder, HttpsOrigin(folder) as origin:
            allow = [*ALLOW, "--egress-ports", str(origin.port)]
            trusting = {**os.environ, "SSL_CERT_FILE": origin.authority}
            for flags, environment, status in (
                (["--fetch-roots", "platform"], trusting, 0),
                (["--fetch-roots", "platform"], {**os.environ, "SSL_CERT_FILE": origin.other}, 1),
                (["--fetch-roots", "webpki"], trusting, 1),
                (["--fetch-roots", "platform", "--fetch-extra-ca", origin.authority], {**os.environ, "SSL_CERT_FILE": origin.other}, 0),
            ):
                command = [server.FOREBAY, "crawl", *allow, *flags, origin.url]
                done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
                self.assertEqual(done.returncode, status, (flags, done.stdout, done.stderr))
                [result] = [event["result"] for event in map(json.loads, done.stdout.splitlines()) if event["type"] == "result"]
                code = result["error"] and result["error"]["code"]
                self.assertEqual(code, "tls_failed" if status else None, flags)

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
        text = " ".join(forebay("serve", "--help").stdout.decode().split())
        for sign in ("[10 to 600000 ms] [env: FOREBAY_HEAD_TIMEOUT_MS] [reloadable]", "[env: FOREBAY_CONFIG]"):
            self.assertIn(sign, text)


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
