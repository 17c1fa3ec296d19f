"""Real Redis servers on free ports, each in a folder of its own; and things that only claim to be one."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from client import ask
from server import Server, wait_until

FIRST = {"robots": "ignore"}
# Patient where the machine is busy: these tests are about what happens, not when.
PATIENT = ("--redis-lookup-timeout-ms", "2000", "--redis-timeout-ms", "3000")


def node(url, *more, **settings):
    """A server that shares."""
    return Server("--redis-url", url, *PATIENT, *more, **settings)


def redis_of(target):
    return ask(target, "GET", "/healthz").json()["redis"]


def becomes(target, state, seconds=15):
    return wait_until(lambda: redis_of(target)["state"] == state, seconds)


def free_port():
    """A port that nobody uses now, and whose cluster bus port is a port, too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        if port < 55000:
            return port


class Refused(Exception):
    """An error that Redis answered."""


class Redis:
    """One `redis-server`; `lines` are of its configuration file."""

    def __init__(self, *lines, port=None, sentinel=False):
        self.port = port or free_port()
        self.folder = tempfile.mkdtemp(prefix="forebay-redis-")
        self.sentinel = sentinel
        self.config = os.path.join(self.folder, "redis.conf")
        own = ["bind 127.0.0.1", f"dir {self.folder}", "daemonize no"]
        # A port of its own is named by the lines where it is no plain one.
        if not any(line.startswith("port ") for line in lines):
            own.append(f"port {self.port}")
        if not sentinel:
            # A replica that comes is served at once.
            own += ['save ""', "repl-diskless-sync-delay 0", "repl-ping-replica-period 1"]
        with open(self.config, "w", encoding="ascii") as file:
            file.write("\n".join([*own, *lines]) + "\n")
        self.child = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            command = ["redis-server", self.config, *(["--sentinel"] if self.sentinel else [])]
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not wait_until(self.listens, 10):
            self.end()
            raise RuntimeError("redis-server did not come up")

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def ask(self, *words, auth=None):
        """One command, over a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            file = connection.makefile("rwb")
            for command in ([("AUTH", *auth)] if auth else []) + [words]:
                file.write(written(command))
                file.flush()
                answer = read_answer(file)
            return answer

    def follows(self):
        """Whether it is a replica that has caught up with its primary."""
        return b"master_link_status:up" in self.ask("INFO", "replication")

    def kill(self):
        """As a crash does it."""
        self.child.kill()
        self.child.wait()

    def pause(self):
        self.child.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.child.send_signal(signal.SIGCONT)

    def end(self):
        if self.child.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


@contextlib.contextmanager
def cluster_of_six():
    """Three primaries with a replica each: the nodes, and the URL of the cluster."""
    lines = ["cluster-enabled yes", "cluster-node-timeout 1500", "cluster-require-full-coverage no"]
    nodes = [Redis(*lines) for _ in range(6)]
    try:
        addresses = [redis.address for redis in nodes]
        make = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        if not wait_until(lambda: all(b"cluster_state:ok" in n.ask("CLUSTER", "INFO") for n in nodes), 20):
            raise RuntimeError("the cluster did not come up")
        if not wait_until(lambda: sum(n.follows() for n in nodes) == 3, 20):
            raise RuntimeError("the cluster has no replicas")
        yield nodes, "redis+cluster://" + ",".join(addresses[:3])
    finally:
        for redis in nodes:
            redis.end()


@contextlib.contextmanager
def sentinel_pair():
    """A primary, its replica, and the URL of a sentinel that watches them."""
    with Redis() as primary, Redis(f"replicaof 127.0.0.1 {primary.port}") as replica:
        lines = [f"sentinel monitor main 127.0.0.1 {primary.port} 1", "sentinel down-after-milliseconds main 500",
                 "sentinel failover-timeout main 2000"]
        with Redis(*lines, sentinel=True) as sentinel:
            if not wait_until(lambda: b"slaves=1" in sentinel.ask("INFO") and replica.follows(), 20):
                raise RuntimeError("the sentinel does not know the replica")
            yield primary, replica, f"redis+sentinel://{sentinel.address}/main"


def written(command):
    """The bytes of a command."""
    parts = [str(word).encode() if not isinstance(word, bytes) else word for word in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def read_answer(file):
    line = file.readline().rstrip(b"\r\n")
    if not line:
        return None
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise Refused(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [read_answer(file) for _ in range(int(rest))]
    return rest.decode()


class Fake:
    """Listens like Redis; what it says is another's idea: `speak(connection)`."""

    def __init__(self, speak):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.speak = speak
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            try:
                self.speak(connection)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def garbage(connection):
    """Answers of every kind that nobody asked for."""
    words = [
        b"+PONG\r\n", b"$-1\r\n", b"*3\r\n:1\r\n", b"\x00\xff\xfe HTTP/1.1 200 OK\r\n\r\n", b"$1000000\r\n",
        b"*1000000000\r\n", b"$4\r\nFBP1\r\n", b":1\r\n", b"-ERR odd\r\n", b"-\r\n", b"$5\r\nhello\r\n",
    ]
    at = 0
    while connection.recv(65536):
        connection.sendall(words[at % len(words)])
        at += 1


def slow(connection):
    """Says what a Redis says that has nothing, two seconds late each time."""
    while received := connection.recv(65536):
        time.sleep(2)
        commands = received.count(b"*")
        connection.sendall(b"$-1\r\n" * max(commands, 1))


def liar(payload):
    """Answers every look-up of a page with the same bytes, at once; of streams, jobs, debts and turns it knows nothing."""
    def speak(connection):
        file = connection.makefile("rwb")
        while command := read_answer(file):
            word, asks = command[0].upper(), command[1:]
            if word == b"EVAL" and b":lease" in asks[3] or word == b"GET" and not asks[0].endswith(b":probe"):
                file.write(b"$%d\r\n%s\r\n" % (len(payload), payload))
            elif word == b"GET":
                file.write(b"$-1\r\n")
            elif word == b"EVAL" and b"limit:" in asks[2]:
                file.write(b"*3\r\n:0\r\n:0\r\n:0\r\n")
            elif word == b"EVAL" and b":turn:" in asks[2]:
                file.write(b":0\r\n")
            elif word == b"EVAL":
                file.write(b":-1\r\n")
            elif word in (b"LPOP", b"HGETALL", b"XRANGE", b"SRANDMEMBER"):
                file.write(b"*0\r\n")
            else:
                file.write(b"+OK\r\n")
            file.flush()
    return speak


def between(redis, judge):
    """A line to a real Redis for `Fake`. `judge` sees each command before it goes on, and may take its
    time; where it says `before`, the line breaks before the command arrives, where it says `after`, once
    Redis has done it and before anybody hears of that."""
    def speak(connection):
        deaf = threading.Event()

        def answer(there):
            with contextlib.suppress(OSError):
                while data := there.recv(65536):
                    if not deaf.is_set():
                        connection.sendall(data)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        with socket.create_connection(("127.0.0.1", redis.port)) as there:
            answers = threading.Thread(target=answer, args=(there,), daemon=True)
            answers.start()
            file = connection.makefile("rb")
            while command := read_answer(file):
                end = judge(command)
                if end == "after":
                    deaf.set()
                if end != "before":
                    there.sendall(written(command))
                if end:
                    break
            # What it has got it does before it sees the end.
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_WR)
            answers.join(5)
    return speak
