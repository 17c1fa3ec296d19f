"""Runs in a network and mount namespace of its own: public and forbidden addresses on loopback, a name
server on port 53, and `forebay serve` without any allowed address. Prints one line of JSON: what became
of each fetch, beside what had to, and which forbidden addresses were connected to."""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import server  # noqa: E402
from client import results, stream  # noqa: E402

PUBLIC, METADATA, PRIVATE = "93.184.216.34", "169.254.169.254", "10.0.0.1"
FORBIDDEN = [METADATA, PRIVATE, "127.0.0.1"]
PAGE = b"<!doctype html><title>t</title><p>" + b"Water runs. " * 30
BLOCKED = "blocked_egress"

reached = []
asked = {}


def zone(name):
    """The addresses of a name, by how often it was asked for."""
    times = asked[name] = asked.get(name, -1) + 1
    return {
        "public.test": [PUBLIC],
        "rebound.test": [[PUBLIC], [METADATA]][min(times, 1)],
        "flapping.test": [[PUBLIC], ["127.0.0.1"]][times % 2],
        "both.test": [PRIVATE, PUBLIC, METADATA],
        "inside.test": [PRIVATE],
        "metadata.test": [METADATA],
    }.get(name, [])


def name_server():
    """RFC 1035, as little of it as a resolver needs; every answer's TTL is 0."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 53))
    while True:
        query, client = udp.recvfrom(512)
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += query[at] + 1
        question, kind = query[12 : at + 5], struct.unpack("!H", query[at + 1 : at + 3])[0]
        found = zone(".".join(labels)) if kind == 1 else []
        answers = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address) for address in found
        )
        udp.sendto(query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0) + question + answers, client)


def listen(address, handle):
    listener = socket.create_server((address, 80))

    def run():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=handle, args=(client, address), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def forbidden(client, address):
    reached.append(address)
    client.close()


REDIRECTS = {
    "/to-metadata": "http://169.254.169.254/latest/meta-data/",
    "/to-name": "http://metadata.test/",
    "/to-mapped": "http://[::ffff:169.254.169.254]/",
    "/to-octal": "http://0251.0376.0251.0376/",
    "/to-decimal": "http://2852039166/",
    "/to-userinfo": "http://public.test@169.254.169.254/",
    "/to-nat64": "http://[64:ff9b::a9fe:a9fe]/",
    "/chain": "/chain2",
    "/chain2": "http://public.test/chain3",
    "/chain3": "http://inside.test/",
}


def public(client, _):
    data = b""
    while b"\r\n\r\n" not in data and (some := client.recv(4096)):
        data += some
    if b" " not in data:
        return client.close()
    path = data.split(b" ")[1].decode()
    if path in REDIRECTS:
        head, body = f"302 X\r\nLocation: {REDIRECTS[path]}", b""
    elif path == "/robots.txt":
        head, body = "404 X", b""
    else:
        head, body = "200 OK\r\nContent-Type: text/html", PAGE
    client.sendall(f"HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    client.close()


def main():
    for command in (
        "ip link set lo up",
        f"ip addr add {PUBLIC}/32 dev lo",
        f"ip addr add {METADATA}/32 dev lo",
        f"ip addr add {PRIVATE}/32 dev lo",
    ):
        subprocess.run(command.split(), check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolv:
        resolv.write("nameserver 127.0.0.1\n")
        resolv.flush()
        subprocess.run(["mount", "--bind", resolv.name, os.path.realpath("/etc/resolv.conf")], check=True)
        threading.Thread(target=name_server, daemon=True).start()
        listen(PUBLIC, public)
        for address in FORBIDDEN:
            listen(address, forbidden)
        with server.Process([server.FOREBAY, "serve", "--listen", "127.0.0.1:0", "--cores", "1", "--hosts", "forebay"]) as running:
            server.Server.wait_ready(running)
            print(json.dumps({"outcomes": fetch_all(running), "reached": reached}), flush=True)


def fetch_all(running):
    """What had to become of each fetch, and what did: "page", or the error's code."""

    def fetch(url):
        _, events = stream(running, [url], timeout_ms=10_000, cache_mode="bypass")
        error = results(events)[0]["error"]
        return error["code"] if error else "page"

    outcomes = {}
    malformed = ["/to-octal", "/to-decimal", "/to-userinfo"]  # no URL that may be followed at all
    for path in REDIRECTS:
        if path.startswith("/to-") or path == "/chain":
            expected = "http_malformed" if path in malformed else BLOCKED
            outcomes[path] = (expected, fetch("http://public.test" + path))
    for url, expected in (
        ("http://public.test/", "page"),
        ("http://both.test/", "page"),  # by its one public address
        ("http://inside.test/", BLOCKED),
        ("http://metadata.test/", BLOCKED),
        (f"http://{METADATA}/", BLOCKED),
        ("http://localhost/", BLOCKED),
        ("http://none.test/", "dns_failed"),
        ("http://rebound.test/", "page"),
    ):
        outcomes[url] = (expected, fetch(url))
    time.sleep(1.2)  # the shortest time that an answer is kept
    outcomes["rebound.test, later"] = (BLOCKED, fetch("http://rebound.test/"))
    flapping = set()
    for _ in range(6):
        flapping.add(fetch("http://flapping.test/"))
        time.sleep(1.1)
    outcomes["flapping.test"] = (["blocked_egress", "page"], sorted(flapping))
    return outcomes


if __name__ == "__main__":
    main()
