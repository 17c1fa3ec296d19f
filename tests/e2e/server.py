"""The real binaries as the tests see them: `forebay serve` and `loadtest origin`.

Every flag and every line that a binary prints is named here and nowhere else.
"""

import os
import re
import signal
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOREBAY = os.environ.get("TEST_FOREBAY", os.path.join(ROOT, "target", "debug", "forebay"))
LOADTEST = os.environ.get("TEST_LOADTEST", os.path.join(ROOT, "target", "debug", "loadtest"))
QUICK = bool(os.environ.get("TEST_QUICK"))  # the smallest sizes, on two cores only
FULL = bool(os.environ.get("TEST_FULL"))  # what is large at its full size

# What a binary prints when it is ready, on either output.
LISTENING = re.compile(r"listening on (?:(https?)://)?(127\.0\.0\.1):(\d+)")
START_S = 180  # a debug build may have to compile the extractor first
STOP_S = 60

# `forebay serve` on a free port, allowed to fetch from loopback.
# "forebay" is what the tests' requests call it.
SERVE = ["serve", "--listen", "127.0.0.1:0", "--egress-allow", "127.0.0.0/8", "--hosts", "forebay"]
ORIGIN = ["origin", "--addr", "127.0.0.1:0"]

# Settings that tests change, by the name that they have here.
FLAGS = {
    "cores": "--cores",
    "head_timeout_ms": "--head-timeout-ms",
    "body_timeout_ms": "--body-timeout-ms",
    "idle_timeout_ms": "--idle-timeout-ms",
    "write_stall_timeout_ms": "--write-stall-ms",
    "urls_max": "--stream-urls-max",
    "request_body_bytes_max": "--body-bytes-max",
    "replay_bytes_max": "--stream-replay-bytes-max",
    "ring_bytes_max": "--buffer-bytes-max",
    "ws_streams_max": "--ws-streams-max",
    "ws_ping_interval_ms": "--ws-ping-interval-ms",
    "ws_close_timeout_ms": "--ws-close-timeout-ms",
    "cache_bytes_max": "--cache-bytes-max",
    "cache_ttl_s": "--cache-ttl-s",
    "cache_ttl_redirect_s": "--cache-ttl-redirect-s",
    "cache_ttl_4xx_s": "--cache-ttl-4xx-s",
    "cache_ttl_5xx_s": "--cache-ttl-5xx-s",
    "cache_ttl_error_s": "--cache-ttl-error-s",
}

# The server's own limits, as in src/limits.rs and the defaults of src/config.rs.
HEAD_BYTES_MAX = 16 * 1024
FIELDS_MAX = 100
TARGET_BYTES_MAX = 8 * 1024
URLS_MAX = 1000


class Process:
    """A child that says where it listens; its latest output is kept for failures."""

    def __init__(self, command, environment=None):
        self.command = command
        self.lines = []
        self._ready = threading.Event()
        self.port = None
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_S) or self.port is None:
            self.kill()
            raise RuntimeError(f"{command} did not come up:\n{self.output()}")

    def _read(self):
        for raw in self.child.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self.lines = self.lines[-499:] + [line]
            found = LISTENING.search(line)
            if found and self.port is None:
                self.scheme = found.group(1) or "http"
                self.host, self.port = found.group(2), int(found.group(3))
                self._ready.set()
        self._ready.set()

    @property
    def address(self):
        return (self.host, self.port)

    @property
    def url(self):
        return f"{self.scheme}://{self.host}:{self.port}"

    def output(self):
        return "\n".join(self.lines)

    def alive(self):
        return self.child.poll() is None

    def memory_bytes(self):
        """Resident memory."""
        with open(f"/proc/{self.child.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def stop(self):
        """SIGTERM; the exit status."""
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"{self.command} ignored SIGTERM:\n{self.output()}")
        finally:
            self._reader.join(5)
            self.child.stdout.close()

    def kill(self):
        if self.alive():
            self.child.kill()
            self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# Several files of tests share the machine: a lane of the lowest priority would get nothing beside them.
LANES = {"FOREBAY_EXTRACT_LANE_CLASS": "normal"}


class Server(Process):
    """`forebay serve`, with settings by the names of FLAGS, or as flags."""

    cores = 2  # what the whole suite runs on; the runner changes it

    def __init__(self, *more, **settings):
        settings.setdefault("cores", self.cores)
        flags = [text for name, value in settings.items() for text in (FLAGS[name], str(value))]
        super().__init__([FOREBAY, *SERVE, *flags, *more], LANES)
        self.wait_ready()

    def wait_ready(self):
        """It listens before its extractor is loaded; until then it takes no work."""
        deadline = time.monotonic() + START_S
        anyone = ssl._create_unverified_context() if self.scheme == "https" else None
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=anyone).close()
                return
            except urllib.error.HTTPError:
                time.sleep(0.02)
        raise RuntimeError(f"the server never became ready:\n{self.output()}")


class Origin(Process):
    """`loadtest origin`: its URLs say how it answers, and it counts what it saw."""

    def __init__(self):
        super().__init__([LOADTEST, *ORIGIN])

    def page(self, n=0, **query):
        return self._at(f"/page/{n}", query)

    def status(self, code, **query):
        return self._at(f"/status/{code}", query)

    def redirect(self, hops, **query):
        return self._at(f"/redirect/{hops}", query)

    def charset(self, label, declare):
        return self._at(f"/charset/{label}", {"declare": declare})

    def hostile(self, name, size="1m"):
        return self._at(f"/hostile/{name}", {"size": size})

    def malformed(self, name, **query):
        return self._at(f"/malformed/{name}", query)

    def names(self, kind):
        """Every name that the origin knows for "malformed" or "hostile"."""
        index = urllib.request.urlopen(self.url, timeout=10).read().decode()
        return re.search(rf"^{kind}: (.*)$", index, re.MULTILINE).group(1).split()

    def at(self, path, **query):
        """Any other path of the grammar, as in at("/stall", at="head")."""
        return self._at(path, query)

    def _at(self, path, query):
        # `for` and `from` are words of Python: for_="1h" asks for=1h.
        pairs = [f"{name.rstrip('_')}={value}" for name, value in query.items()]
        return f"{self.url}{path}" + ("?" + "&".join(pairs) if pairs else "")


_shared = {}


def shared():
    """The server and the origin that most tests use; started at the first call."""
    # Without a cache: what one test has fetched must not answer another.
    for name, make in (("origin", Origin), ("server", lambda: Server(cache_bytes_max=0))):
        if name not in _shared or not _shared[name].alive():
            _shared[name] = make()
    return _shared["server"], _shared["origin"]


def stop_shared():
    """Ends them; the server's exit status must be 0."""
    statuses = {name: process.stop() for name, process in _shared.items()}
    _shared.clear()
    return statuses.get("server", 0)


def wait_until(condition, seconds=10.0):
    """Asks until it is true; the last answer. For what has no event to wait for."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer or time.monotonic() > end:
            return answer
        time.sleep(0.01)
