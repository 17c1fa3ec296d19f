"""Running it: a restart that refuses nobody, what the service manager is told, the files that belong to
it, what /metrics has of it, traces, slow first bytes, and the commands top, hdr, completions and man."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
import unittest

import server
from client import Connection, ask, request, stream
from test_cli import forebay
from test_config import Folder

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Passed(server.Process):
    """A server that gets its listening sockets as systemd passes them (sd_listen_fds(3))."""

    def __init__(self, sockets, *flags, environment=None):
        dup = "".join(f"exec {3 + at}<&{one.fileno()}; " for at, one in enumerate(sockets))
        script = f'{dup}export LISTEN_PID=$$ LISTEN_FDS={len(sockets)}; exec "$@"'
        self.fds = [one.fileno() for one in sockets]
        for fd in self.fds:
            os.set_inheritable(fd, True)
        command = [server.FOREBAY, "serve", "--egress-allow", "127.0.0.0/8", *flags]
        popen = subprocess.Popen
        subprocess.Popen = lambda *a, **k: popen(*a, **{**k, "close_fds": False})
        try:
            super().__init__(["bash", "-c", script, "bash", *command], environment)
        finally:
            subprocess.Popen = popen
            for fd in self.fds:
                os.set_inheritable(fd, False)


def listener():
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(1024)
    # High enough to be out of the way of what is passed as 3 and on.
    high = socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))
    made.close()
    return high


class Load:
    """Clients that connect, ask and go, all the time; what did not come to its answer is counted."""

    def __init__(self, address, clients=4):
        self.address, self.answered, self.failed, self.over = address, 0, [], threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.over.is_set():
            try:
                with Connection(self.address) as connection:
                    connection.send(request("GET", "/livez", fields=["Connection: close"]))
                    status = connection.read_response().status
                with self.lock:
                    self.answered += 1
                    if status != 200:
                        self.failed.append(status)
            except Exception as error:  # whatever it is, a client was let down
                with self.lock:
                    self.failed.append(repr(error))

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)


class Restart(unittest.TestCase):
    def wait_ready(self, address):
        ready = lambda: self.status(address) == 200
        self.assertTrue(server.wait_until(ready, server.START_S))

    def status(self, address):
        with Connection(address) as connection:
            connection.send(request("GET", "/readyz", fields=["Connection: close"]))
            return connection.read_response().status

    def test_nobody_is_refused_while_one_process_follows_another(self):
        held = listener()
        address = held.getsockname()
        self.addCleanup(held.close)
        running = Passed([held], "--cores", str(server.Server.cores))
        self.addCleanup(lambda: running.kill())
        self.wait_ready(address)
        load = Load(address)
        self.addCleanup(load.stop)
        for _ in range(3):
            before = load.answered
            self.assertTrue(server.wait_until(lambda: load.answered > before + 50))
            following = Passed([held], "--cores", str(server.Server.cores))
            self.addCleanup(following.kill)
            self.assertTrue(server.wait_until(lambda: "ready" in following.output(), server.START_S))
            self.assertEqual(running.stop(), 0)
            running = following
            before = load.answered
            self.assertTrue(server.wait_until(lambda: load.answered > before + 50))
        load.stop()
        self.assertEqual(load.failed, [])
        self.assertGreater(load.answered, 300)

    def test_clients_wait_while_nobody_runs(self):
        held = listener()
        self.addCleanup(held.close)
        with Connection(held.getsockname()) as connection:
            connection.send(request("GET", "/livez"))
            running = Passed([held], "--cores", "1")
            self.addCleanup(running.kill)
            self.assertEqual(connection.read_response().status, 200)
        self.assertEqual(running.stop(), 0)

    def test_more_sockets_than_cores_are_refused(self):
        sockets = [listener(), listener()]
        for one in sockets:
            self.addCleanup(one.close)
        with self.assertRaises(RuntimeError) as told:
            Passed(sockets, "--cores", "1")
        self.assertIn("2 listening sockets were passed for 1 cores", str(told.exception))

    def test_a_passed_socket_that_all_can_reach_wants_keys(self):
        held = socket.socket()
        held.bind(("0.0.0.0", 0))
        held.listen(8)
        high = socket.socket(fileno=fcntl.fcntl(held.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))
        held.close()
        self.addCleanup(high.close)
        with self.assertRaises(RuntimeError) as told:
            Passed([high], "--cores", "1")
        self.assertIn("auth.keys_file", str(told.exception))


class Manager(Folder):
    CORES = (2,)  # always two

    def test_the_service_manager_is_told(self):
        path = self.path("notify")
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(path)
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "4000000"}
        running = server.Process([server.FOREBAY, *server.SERVE, "--cores", "2"], environment)
        self.addCleanup(running.kill)
        seen = []

        def until(sign):
            while not any(sign in state for state in seen):
                seen.append(manager.recv(4096).decode())
            found = next(at for at, state in enumerate(seen) if sign in state)
            return [seen.pop(0) for _ in range(found + 1)][-1]

        until("READY=1")
        for _ in range(2):
            until("WATCHDOG=1")
        running.child.send_signal(signal.SIGHUP)
        self.assertRegex(until("RELOADING=1"), r"MONOTONIC_USEC=\d+")
        until("READY=1")
        self.assertEqual(running.stop(), 0)
        until("STOPPING=1")


class Files(Folder):
    CORES = (2,)  # what the binary prints

    def file(self, name):
        done = forebay("files", name)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def test_each_file_is_listed_and_printed(self):
        names = [line.split()[0] for line in forebay("files").stdout.decode().splitlines()]
        self.assertEqual(len(names), 6)
        for name in names:
            self.assertTrue(self.file(name).endswith("\n"), name)
        self.assertEqual(forebay("files", "nothing").returncode, 2)
        for name in ("dashboard.json", "seccomp-io_uring.json"):
            json.loads(self.file(name))

    def test_every_metric_that_is_named_is_there(self):
        _, origin = server.shared()
        # Some are there only where there is what they count; nobody has to answer.
        running = server.Server("--redis-url", "redis://127.0.0.1:1", "--otlp-endpoint", "http://127.0.0.1:1")
        self.addCleanup(running.stop)
        stream(running, [origin.page(1)])
        text = ask(running, "GET", "/metrics").body.decode()
        there = {"up"}
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE):
            there |= {name} if kind != "histogram" else {f"{name}_{end}" for end in ("bucket", "sum", "count")}
        dashboard = json.loads(self.file("dashboard.json"))
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        expressions += re.findall(r"expr: (?:>-\n)?((?:.*\n)(?: {10,}.*\n)*)", self.file("alerts.yml"))
        self.assertGreater(len(expressions), 60)
        together = " ".join(expressions)
        for part in ("redis", "jobs", "webhooks", "index", "otlp", "cache", "lane"):
            self.assertIn(f"forebay_{part}_", together)
        for expression in expressions:
            named = re.findall(r"\b(?:forebay|process)_[a-z0-9_]+\b|\bup\b", re.sub(r'"[^"]*"', '""', expression))
            self.assertTrue(named, expression)
            self.assertLessEqual(set(named), there, expression)
        # Limits are labels of one metric, as are the ways in which jobs, webhooks and exports end.
        for setting in re.findall(r'forebay_limit\{[^}]*name="([^"]+)"', together):
            self.assertIn(f'forebay_limit{{name="{setting}"}}', text)
        for name, label, value in re.findall(r'(forebay_(?:jobs|webhooks|otlp|redis)\w*)\{(\w+)="([^"]+)"', together):
            self.assertRegex(text, rf'{name}\{{[^}}]*{label}="{value}"')

    def test_every_setting_that_is_named_is_there(self):
        known = set(json.loads(forebay("config", "--format", "json").stdout))
        sections = {name.partition(".")[0] for name in known}
        for name in ("alerts.yml", "dashboard.json", "forebay.service", "forebay.socket", "Containerfile"):
            text = re.sub(r"forebay\.\w+|[\w/]*/[\w/.-]+", "", self.file(name))
            named = {one for one in re.findall(r"\b[a-z]+\.[a-z0-9_]+\b", text) if one.partition(".")[0] in sections}
            self.assertLessEqual(named, known, name)
            # A setting's last part alone is no name that anybody could look for.
            for setting in known:
                last = setting.partition(".")[2]
                if "_" in last:
                    self.assertNotRegex(text, rf"(?<![.\w]){last}\b", name)

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not installed (Debian package prometheus)")
    def test_promtool_finds_nothing(self):
        rules = self.path("alerts.yml", self.file("alerts.yml"))
        done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done)
        running, origin = server.shared()
        stream(running, [origin.page(1), "http://10.0.0.1/", "http://127.0.0.1:1/"])
        text = ask(running, "GET", "/metrics").body
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed (Debian package systemd)")
    def test_systemd_takes_the_units(self):
        binary = self.path("forebay")
        os.symlink(server.FOREBAY, binary)
        for name in ("forebay.service", "forebay.socket"):
            self.path(name, self.file(name).replace("/usr/local/bin/forebay", binary))
        paths = [self.path(name) for name in ("forebay.service", "forebay.socket")]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, check=False,
                              timeout=60, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{self.folder}:"})
        mine = [line for line in (done.stdout + done.stderr).decode().splitlines() if "forebay" in line]
        self.assertEqual(mine, [])

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed (Debian package systemd)")
    def test_systemd_finds_the_unit_hardened(self):
        """Exposure as systemd counts it: 0 nothing could be done with it, 10 anything."""
        unit = self.path("forebay.service", self.file("forebay.service"))
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
        probe = subprocess.run([*command, "--threshold=100", unit], capture_output=True, check=False, timeout=60)
        if b"unrecognized option" in probe.stderr:
            self.skipTest("this systemd-analyze knows no --offline")
        self.assertEqual(probe.returncode, 0, probe.stderr.decode())
        done = subprocess.run([*command, "--threshold=20", unit], capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout.decode()[-3000:])

    def test_completions_and_manual(self):
        for shell, sign in (("bash", "complete "), ("zsh", "#compdef forebay"), ("fish", "complete -c forebay")):
            text = forebay("completions", shell).stdout.decode()
            self.assertIn(sign, text)
            self.assertIn("egress-allow", text)
        if shutil.which("bash"):
            script = self.path("c.bash", forebay("completions", "bash").stdout.decode())
            done = subprocess.run(["bash", "-c", f". {script}; complete -p forebay"], capture_output=True, check=False, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
        text = forebay("man").stdout.decode()
        for sign in (".TH", "forebay", "FOREBAY HDR", "\\-\\-egress\\-allow"):
            self.assertIn(sign, text)


class Metrics(Folder):
    def value(self, running, name):
        text = ask(running, "GET", "/metrics").body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def test_what_the_loops_do_is_counted(self):
        running = server.Server()
        self.addCleanup(running.stop)
        value = lambda name: self.value(running, name)
        before = value("forebay_ring_operations_total")
        for _ in range(20):
            ask(running, "GET", "/livez")
        self.assertGreaterEqual(value("forebay_ring_operations_total"), before + 40)
        self.assertGreaterEqual(value('forebay_ring_operations_total{core="0",op="accept"}')
                                + value('forebay_ring_operations_total{core="1",op="accept"}'), 20)
        self.assertGreater(value("forebay_loop_tasks{"), 0)
        self.assertTrue(server.wait_until(lambda: value("forebay_loop_beats_total") >= running.cores))
        if "runtime=io_uring" in re.sub(r"\x1b\[[0-9;]*m", "", running.output()):
            self.assertGreater(value("forebay_ring_submissions_total"), 40)
            self.assertGreater(value("forebay_ring_completions_total"), 40)

    def test_refusals_have_their_reasons(self):
        running = server.Server("--egress-deny", "denied.example")
        self.addCleanup(running.stop)
        stream(running, ["http://10.0.0.1/", "http://127.0.0.1:23/", "http://denied.example/", "http://[::ffff:10.0.0.1]/"])
        reasons = {why: self.value(running, f'forebay_egress_refused_total{{reason="{why}"}}')
                   for why in ("special", "denied", "port", "embedded")}
        self.assertGreaterEqual(reasons["special"], 1, reasons)
        self.assertGreaterEqual(reasons["denied"], 1, reasons)
        self.assertEqual(sum(reasons.values()), self.value(running, "forebay_egress_refused_total"))

    def test_the_start_says_what_there_is_and_what_is_not(self):
        running = server.Server()
        self.addCleanup(running.stop)
        text = lambda: re.sub(r"\x1b\[[0-9;]*m", "", running.output())
        for sign in ("cores=", "runtime=", "reason=", "memory_mib=", "connections=20000", "TLS (tls.cert)", "ready"):
            self.assertTrue(server.wait_until(lambda: sign in text()), f"no {sign} in {text()}")


class Start(Folder):
    CORES = (2,)  # as many as the machine has

    def test_it_takes_work_once_it_is_warm(self):
        # Without a compiled extractor in its cache the start takes seconds.
        running = server.Process([server.FOREBAY, *server.SERVE], {"XDG_CACHE_HOME": tempfile.mkdtemp(dir=self.folder)})
        self.addCleanup(running.kill)
        page = {"html": "<title>t</title><p>water"}
        self.assertEqual(ask(running, "GET", "/livez").status, 200)
        early = [ask(running, "GET", "/readyz"), ask(running, "POST", "/extract", page)]
        self.assertEqual([(answer.status, answer.field("retry-after")) for answer in early], [(503, "1")] * 2)
        self.assertIn("being loaded", early[0].json()["error"]["message"])
        self.assertTrue(server.wait_until(lambda: ask(running, "GET", "/readyz").status == 200, server.START_S))
        self.assertEqual(ask(running, "POST", "/extract", page).status, 200)
        self.assertEqual(running.stop(), 0)

    def test_rust_log_has_the_last_word(self):
        running = server.Process([server.FOREBAY, *server.SERVE, "--log-level", "error", "--log-format", "json"],
                                 {"RUST_LOG": "forebay=debug"})
        self.addCleanup(running.kill)
        server.Server.wait_ready(running)
        self.assertEqual(running.stop(), 0)
        lines = [json.loads(line) for line in running.lines if line.startswith("{")]
        self.assertLessEqual({"DEBUG", "INFO"}, {line["level"] for line in lines})
        for line in lines:
            self.assertLessEqual({"timestamp", "level", "target", "message"}, set(line), line)


class Tracing(Folder):
    def test_a_trace_goes_in_and_out(self):
        _, origin = server.shared()
        audit = self.path("audit")
        running = server.Server("--audit-file", audit, cache_bytes_max=0)
        self.addCleanup(running.stop)
        seen = Headers()
        self.addCleanup(seen.close)
        with Connection(running.address) as connection:
            body = {"urls": [seen.url + "/a", seen.url + "/b"], "options": {"robots": "ignore"}}
            connection.send(request("POST", "/crawl/stream", body, [f"traceparent: {PARENT}"]))
            head = connection.read_head()
            list(connection.read_lines(head))
        sent = [fields["traceparent"] for fields in seen.requests]
        self.assertEqual(len(set(sent)), 2)
        trace, parent = PARENT.split("-")[1:3]
        for field in sent:
            self.assertRegex(field, rf"^00-{trace}-[0-9a-f]{{16}}-01$")
            self.assertNotIn(parent, field)
        told = ask(running, "GET", f"/streams/{head.field('x-stream-id')}/trace").json()
        self.assertEqual(told["traceparent"].split("-")[1], trace)
        lines = lambda: open(audit, encoding="utf-8").read()
        self.assertTrue(server.wait_until(lambda: f'"trace_id":"{trace}"' in lines()), lines())

    def test_nothing_goes_out_without_one_or_with_a_broken_one(self):
        running, _ = server.shared()
        for fields in ([], ["traceparent: nonsense"], [f"traceparent: {PARENT}"] * 2):
            seen = Headers()
            self.addCleanup(seen.close)
            with Connection(running.address) as connection:
                body = {"urls": [seen.url], "options": {"robots": "ignore"}}
                connection.send(request("POST", "/crawl", body, fields))
                self.assertEqual(connection.read_response().status, 200)
            self.assertEqual([field.get("traceparent") for field in seen.requests], [None])

    def test_a_slow_first_byte_is_warned_of(self):
        running = server.Server("--log-ttfb-warn-ms", "100", "--log-format", "json")
        self.addCleanup(running.stop)
        with Connection(running.address) as connection:
            page = b"<title>t</title><p>slow" * 20
            head = request("POST", "/extract", page, ["Content-Type: text/html", f"traceparent: {PARENT}", "X-Request-ID: slow-1"])
            connection.send(head[:-10])
            time.sleep(0.3)
            connection.send(head[-10:])
            self.assertEqual(connection.read_response().status, 200)

        def warning():
            lines = [json.loads(line) for line in running.lines if line.startswith("{")]
            return [line for line in lines if line.get("message") == "slow first byte"]

        self.assertTrue(server.wait_until(warning), running.output())
        line = warning()[0]
        self.assertEqual((line["level"], line["request_id"], line["trace_id"]), ("WARN", "slow-1", PARENT.split("-")[1]))
        self.assertGreaterEqual(line["ttfb_ms"], 200)
        stages = [line[stage] for stage in ("head_us", "body_us", "work_us", "send_us")]
        self.assertEqual(max(stages), line["body_us"])
        self.assertIn("forebay_ttfb_slow_total 1", ask(running, "GET", "/metrics").body.decode())


class Headers:
    """An origin that notes the fields of its requests."""

    def __init__(self):
        self.requests = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += client.recv(65536)
                lines = data.decode("latin-1").split("\r\n")[1:]
                self.requests.append({name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)})
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 9\r\n\r\n<p>hi</p>")

    def close(self):
        self.socket.close()


class Top(Folder):
    def test_once_is_text(self):
        running, origin = server.shared()
        stream(running, [origin.page(1)])
        done = forebay("top", running.url, "--once", "--interval-ms", "200")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        text = done.stdout.decode()
        for sign in (f"at {running.url}: ok, extractor ready", "connections", "of 20000", "core", "crawl.ndjson.ttfb", "p99.9"):
            self.assertIn(sign, text)

    def test_a_server_that_is_not_there_and_one_that_wants_a_key(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        done = forebay("top", f"127.0.0.1:{port}", "--once")
        self.assertEqual(done.returncode, 2)
        self.assertIn("nobody listens there", done.stderr.decode())
        made = forebay("key", "new", "--name", "w", "--scopes", "metrics")
        keys, key = self.path("keys.toml", made.stdout.decode()), self.path("key", made.stderr.decode())
        running = server.Server("--auth-keys-file", keys)
        self.addCleanup(running.stop)
        done = forebay("top", running.url, "--once")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--key-file", done.stderr.decode())
        done = forebay("top", running.url, "--once", "--key-file", key, "--interval-ms", "100")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(forebay("top", running.url).returncode, 2, "without a terminal")

    def test_a_terminal_is_drawn_resized_and_left(self):
        running, _ = server.shared()
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)
        size = lambda rows, columns: fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        size(24, 80)
        child = subprocess.Popen([server.FOREBAY, "top", running.url, "--interval-ms", "200"], stdin=follower,
                                 stdout=follower, stderr=follower, start_new_session=True,
                                 env={**os.environ, "TERM": "xterm"})
        self.addCleanup(lambda: child.poll() is None and child.kill())
        shown = b""

        def until(sign, seconds=30):
            nonlocal shown
            end = time.monotonic() + seconds
            while sign not in shown and time.monotonic() < end:
                if select.select([leader], [], [], 0.2)[0]:
                    shown += os.read(leader, 65536)
            self.assertIn(sign, shown)
            shown = b""

        until(b"latency")
        size(40, 120)
        child.send_signal(signal.SIGWINCH)
        until("─".encode() * 100)
        os.write(leader, b"q")
        until(b"\x1b[?1049l")
        self.assertEqual(child.wait(30), 0)
        os.close(follower)


class Hdr(Folder):
    CORES = (2,)  # a command

    def test_files_are_printed_compared_and_merged(self):
        running, origin = server.shared()
        stream(running, [origin.page(n) for n in range(5)])
        hlog = self.path("a.hlog", ask(running, "GET", "/latency?format=hlog").body.decode())
        hgrm = self.path("b.hgrm", ask(running, "GET", "/latency?format=hgrm").body.decode())
        told = [json.loads(line) for line in forebay("hdr", hlog, "--format", "json").stdout.splitlines()]
        counts = {line["series"]: line["count"] for line in told}
        self.assertGreaterEqual(counts["page.body"], 5)
        text = forebay("hdr", "--series", "page.body", hlog, hgrm).stdout.decode()
        for sign in ("page.body", "a.hlog", "b.hgrm", "ratio", "p99.99", "99.9%"):
            self.assertIn(sign, text)
        merged = self.path("c.hlog", forebay("hdr", "--merge", "--format", "hlog", hlog, hlog).stdout.decode())
        told = [json.loads(line) for line in forebay("hdr", merged, "--format", "json").stdout.splitlines()]
        self.assertEqual({line["series"]: line["count"] for line in told}, {name: 2 * count for name, count in counts.items()})
        wrong = forebay("hdr", self.path("d", "what is this\n"))
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("entry 1", wrong.stderr.decode())


if __name__ == "__main__":
    unittest.main()
