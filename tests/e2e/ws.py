"""WebSocket clients: `Socket` over the `websockets` package, `Raw` with frames by hand."""

import base64
import json
import os
import struct

import schemas
from client import TIMEOUT_S, Connection
from websockets.sync.client import connect

DURABLE = {"metadata", "search", "result", "gap", "error", "summary"}


def described(message):
    """A message that fits its published schema; events of a stream are looked at with their stream."""
    wrong = [] if "seq" in message else schemas.wrong("WsMessage", message)
    if wrong:
        raise AssertionError(wrong)
    return message


class Socket:
    """One socket of many streams; events are kept by their stream's id until they are asked for."""

    def __init__(self, server, path="/crawl/ws", **options):
        url = f"ws://{server.host}:{server.port}{path}"
        options.setdefault("subprotocols", ["crawl.v1"])
        self.connection = connect(url, max_size=None, proxy=None, **options)
        self.kept = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def cut(self):
        """Ends the connection without a closing handshake."""
        linger = struct.pack("ii", 1, 0)
        self.connection.socket.setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER
        self.connection.close_socket()

    def op(self, op, **fields):
        self.connection.send(json.dumps({"op": op, **fields}))

    def crawl(self, name, urls, credit=None, **options):
        fields = {} if credit is None else {"credit": credit}
        self.op("crawl", id=name, data={"urls": urls, "options": options}, **fields)

    def event(self, seconds=TIMEOUT_S):
        """The next message; it must be a text."""
        text = self.connection.recv(timeout=seconds)
        if not isinstance(text, str):
            raise AssertionError(f"a binary message: {text[:100]!r}")
        return described(json.loads(text))

    def next(self, name, seconds=TIMEOUT_S):
        """The next event of one stream, or answer for that id."""
        while not self.kept.get(name):
            event = self.event(seconds)
            self.kept.setdefault(event.pop("id", None), []).append(event)
        return self.kept[name].pop(0)

    def until(self, name, kind):
        """A stream's events up to one of that type."""
        events = [self.next(name)]
        while events[-1]["type"] != kind:
            events.append(self.next(name))
        return events

    def results(self, name, count):
        """A stream's events up to so many results."""
        events = []
        while sum(event["type"] == "result" for event in events) < count:
            events.append(self.next(name))
        return events

    def stream(self, name):
        """A stream's events to its end."""
        events = []
        while not events or events[-1]["type"] not in ("summary", "error"):
            events.append(self.next(name))
        return events

    def quiet(self, seconds):
        """Whether nothing at all comes for so long."""
        try:
            event = self.event(seconds)
        except TimeoutError:
            return True
        self.kept.setdefault(event.pop("id", None), []).append(event)
        return False

    def status(self):
        """The socket's streams by id; what comes before the answer is kept."""
        self.op("status", id="?")
        return {stream["id"]: stream for stream in self.next("?")["streams"]}


def handshake(path="/crawl/ws", fields=()):
    """The bytes of an opening handshake without compression."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1", "Host: forebay", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload, first=0x81):
    """One masked frame; `first` is its first byte, a whole text if nothing is said."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    mask = os.urandom(4)
    if len(payload) < 126:
        head = bytes([first, 0x80 | len(payload)])
    elif len(payload) < 65536:
        head = bytes([first, 0xFE]) + struct.pack("!H", len(payload))
    else:
        head = bytes([first, 0xFF]) + struct.pack("!Q", len(payload))
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Raw:
    """A socket that does nothing by itself: no pongs, no reading."""

    def __init__(self, server, receive_buffer=None, glued=b""):
        self.connection = Connection(server.address, receive_buffer)
        self.connection.send(handshake() + glued)
        head = self.connection.read_head()
        if head.status != 101:
            raise AssertionError(f"refused: {head}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, payload, first=0x81):
        self.connection.send(frame(payload, first))

    def read(self):
        """The next frame: opcode and payload. The server neither masks nor fragments."""
        first, length = self.connection.read_exactly(2)
        if first & 0xF0 != 0x80 or length & 0x80:
            raise AssertionError(f"frame {first:02x} {length:02x}")
        if length == 126:
            (length,) = struct.unpack("!H", self.connection.read_exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.connection.read_exactly(8))
        return first & 0x0F, self.connection.read_exactly(length)

    def event(self):
        """The next message; control frames are passed over."""
        while True:
            opcode, payload = self.read()
            if opcode == 1:
                return described(json.loads(payload))
            if opcode == 8:
                raise AssertionError(f"closed: {payload!r}")
