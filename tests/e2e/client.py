"""A small HTTP/1.1 client over raw sockets: sends exactly the bytes it is given and reads answers
strictly, so that a framing error of the server is an error here. Also curl, and NDJSON."""

import json
import select
import socket
import subprocess

TIMEOUT_S = 60.0


class ProtocolError(AssertionError):
    """The server broke HTTP."""


class Closed(Exception):
    """The connection ended where an answer could have begun."""


class Response:
    def __init__(self, version, status, reason, fields):
        self.version, self.status, self.reason, self.fields = version, status, reason, fields
        self.body = b""

    def field(self, name):
        values = self.all(name)
        if len(values) > 1:
            raise ProtocolError(f"{name} {len(values)} times")
        return values[0] if values else None

    def all(self, name):
        return [value for key, value in self.fields if key == name.lower()]

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body[:300]!r}"


class Connection:
    """One socket. `read_*` raise on a timeout, so nothing here waits for ever."""

    def __init__(self, address, receive_buffer=None, source=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes with a RST."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def drip(self, data):
        """Every byte in a segment of its own."""
        for at in range(len(data)):
            self.socket.sendall(data[at : at + 1])

    def finish(self):
        """No more requests: closes our half."""
        self.socket.shutdown(socket.SHUT_WR)

    def fill(self):
        """Receives once; False at the end of the connection."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def read_line(self):
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > 65536:
                raise ProtocolError("a line without end")
            if not self.fill():
                raise Closed(self.buffer)
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def read_exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise ProtocolError(f"ended {count - len(self.buffer)} bytes early")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_head(self):
        """Status line and fields of the next answer, interim ones included."""
        parts = self.read_line().decode("latin-1").split(" ", 2)
        if len(parts) < 2 or parts[0] != "HTTP/1.1" or not parts[1].isdigit():
            raise ProtocolError(f"status line {parts}")
        fields = []
        while line := self.read_line().decode("latin-1"):
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise ProtocolError(f"field {line!r}")
            fields.append((name.lower(), value.strip()))
        return Response(parts[0], int(parts[1]), parts[2] if len(parts) > 2 else "", fields)

    def read_response(self, method="GET"):
        """The next final answer with its body; interim ones are skipped."""
        response = self.read_head()
        while response.status in range(100, 200) and response.status != 101:
            response = self.read_head()
        response.body = b"".join(self.read_body(response, method))
        return response

    def read_body(self, response, method="GET"):
        """The pieces of a body as they come (RFC 9112 section 6.3)."""
        if method == "HEAD" or response.status in (204, 304):
            return
        if response.field("transfer-encoding") is not None:
            if response.field("content-length") is not None:
                raise ProtocolError("both framings")
            while size := int(self.read_line(), 16):
                yield self.read_exactly(size)
                if self.read_exactly(2) != b"\r\n":
                    raise ProtocolError("no line end after a chunk")
            if self.read_line():
                raise ProtocolError("trailers")
        elif response.field("content-length") is not None:
            yield self.read_exactly(int(response.field("content-length")))
        else:
            while self.fill():
                pass
            data, self.buffer = self.buffer, b""
            yield data

    def read_lines(self, response):
        """The lines of a streamed body, each as soon as it is whole."""
        rest = b""
        for piece in self.read_body(response):
            *lines, rest = (rest + piece).split(b"\n")
            yield from lines
        if rest:
            raise ProtocolError(f"the last line has no end: {rest[:200]!r}")

    def ended(self):
        """Whether the server closes without another byte."""
        if self.buffer:
            return False
        return not self.fill()

    def cut_within(self, seconds):
        """Whether the server ends the connection, without reading from it."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(seconds * 1000))


def request(method, target, body=None, fields=(), host="forebay", version="HTTP/1.1"):
    """The bytes of a well-formed request."""
    lines = [f"{method} {target} {version}", f"Host: {host}", *fields]
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        lines.append("Content-Type: application/json")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def ask(server, method, target, body=None, fields=(), source=None):
    """One request on a connection of its own."""
    with Connection(server.address, source=source) as connection:
        connection.send(request(method, target, body, fields))
        return connection.read_response(method)


def events_of(connection, head):
    """The events of a streamed answer, NDJSON or SSE, each as soon as it is whole."""
    sse = head.field("content-type") == "text/event-stream"
    for line in connection.read_lines(head):
        if not sse:
            yield json.loads(line)
        elif line.startswith(b"data: "):
            yield json.loads(line[6:])


def stream(server, urls, target="/crawl/stream", **options):
    """Head and events of one stream over HTTP, read to its end."""
    with Connection(server.address) as connection:
        connection.send(request("POST", target, {"urls": urls, "options": options}))
        head = connection.read_head()
        if head.status != 200:
            head.body = b"".join(connection.read_body(head))
            raise AssertionError(f"refused: {head}")
        return head, list(events_of(connection, head))


def results(events):
    """The results of a stream by index."""
    return {event["index"]: event["result"] for event in events if event["type"] == "result"}


def curl(*arguments):
    """curl's output; its exit status must be 0."""
    command = ["curl", "--silent", "--show-error", "--max-time", "60", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=90)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def origin_json(origin, path):
    """Status and JSON of one of the origin's control paths."""
    response = ask(origin, "GET", path)
    return response.status, response.json()
