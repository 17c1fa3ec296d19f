"""Traces and metrics for an OpenTelemetry collector, read by OpenTelemetry's own messages; collectors that
are away, slow, mad or full."""

import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

import server
import ws
from client import Connection, ask, request
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_cli import forebay
from test_ops import Headers

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = (f"traceparent: 00-{TRACE}-{PARENT}-{flag}" for flag in ("01", "00"))
SERVER, CLIENT, INTERNAL = 2, 3, 1
OPTIONS = {"robots": "ignore", "cache_mode": "bypass"}


def attributes(of):
    value = lambda any_: getattr(any_, any_.WhichOneof("value"))
    return {pair.key: value(pair.value) for pair in of.attributes}


def stream(running, urls, fields):
    """The events of one stream."""
    with Connection(running.address) as connection:
        connection.send(request("POST", "/crawl/stream", {"urls": urls, "options": OPTIONS}, fields))
        return [json.loads(line) for line in connection.read_lines(connection.read_head())]


def certificates(folder):
    """An authority, and what it has made for 127.0.0.1: certificate and key."""
    pem = {name: os.path.join(folder, name + ".pem") for name in ("ca", "ca-key", "cert", "key")}
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    authority = ["-subj", "/CN=authority", "-keyout", pem["ca-key"], "-out", pem["ca"]]
    leaf = ["-subj", "/CN=collector", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", pem["ca"], "-CAkey", pem["ca-key"], "-keyout", pem["key"], "-out", pem["cert"]]
    for part in (authority, leaf):
        subprocess.run([*make, *part], check=True, capture_output=True, timeout=60)
    return pem["ca"], (pem["cert"], pem["key"])


class Collector:
    """Takes what is exported, and answers as the test says."""

    def __init__(self, tls=None):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.heads.append((self.path, dict(self.headers)))
                kind = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}[self.path]
                message = kind()
                message.ParseFromString(body)
                time.sleep(collector.delay)
                status = collector.statuses.get(self.path, collector.status)
                if status == 200:
                    (collector.traces if kind is ExportTraceServiceRequest else collector.metrics).append(message)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    if status != 200 and collector.retry_after:
                        self.send_header("Retry-After", str(collector.retry_after))
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self.traces, self.metrics, self.heads, self.status, self.delay = [], [], [], 200, 0
        self.statuses, self.retry_after = {}, None  # by path, and for whoever is not answered 200
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def spans(self):
        scopes = [scope for message in self.traces for all_ in message.resource_spans for scope in all_.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def resources(self):
        traces = [all_.resource for message in self.traces for all_ in message.resource_spans]
        return traces + [all_.resource for message in self.metrics for all_ in message.resource_metrics]

    def latest(self):
        """The last export's metrics by name."""
        scopes = [scope for all_ in self.metrics[-1].resource_metrics for scope in all_.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}


class Otlp(unittest.TestCase):
    def collect(self, **more):
        collector = Collector(**more)
        self.addCleanup(collector.close)
        return collector

    def run_server(self, collector, *flags, interval_ms=100):
        url = collector if isinstance(collector, str) else collector.url
        running = server.Server("--otlp-endpoint", url, "--otlp-interval-ms", str(interval_ms), *flags)
        self.addCleanup(running.kill)
        return running

    def await_spans(self, collector, count):
        self.assertTrue(server.wait_until(lambda: len(collector.spans()) >= count, 20), collector.spans())
        return collector.spans()

    def health(self, running):
        return ask(running, "GET", "/healthz", fields=[UNSAMPLED]).json()["otlp"]


class Traces(Otlp):
    def test_a_request_its_stream_and_its_pages_are_one_trace(self):
        collector, origin = self.collect(), Headers()
        self.addCleanup(origin.close)
        running = self.run_server(collector, "--otlp-service-name", "weir", "--otlp-headers", "x-scope=S3CRET value")
        urls = [f"{origin.url}/a?token=S3CRET", f"{origin.url}/b", "http://127.0.0.1:1/"]
        fields = [SAMPLED, "X-Request-ID: r-1"]
        before = time.time_ns()
        # Port 1 is none that may be fetched.
        events = stream(running, urls, fields)
        after = time.time_ns()
        spans = self.await_spans(collector, 5)
        self.assertEqual({span.trace_id.hex() for span in spans}, {TRACE})
        by_kind = {kind: [span for span in spans if span.kind == kind] for kind in (SERVER, INTERNAL, CLIENT)}
        [request], [whole], pages = by_kind[SERVER], by_kind[INTERNAL], by_kind[CLIENT]
        self.assertEqual((request.parent_span_id.hex(), request.name), (PARENT, "POST /crawl/stream"))
        self.assertEqual((whole.parent_span_id, whole.name), (request.span_id, "crawl"))
        self.assertEqual([page.parent_span_id for page in pages], [whole.span_id] * 3)
        self.assertEqual(len({span.span_id for span in spans} | {bytes.fromhex(PARENT)}), 6)
        # What each origin was told is the span that was exported for it.
        told = {field["traceparent"] for field in origin.requests}
        self.assertEqual(told, {f"00-{TRACE}-{page.span_id.hex()}-01" for page in pages if attributes(page)["forebay.index"] < 2})
        for span in spans:
            self.assertLessEqual(before, span.start_time_unix_nano)
            self.assertLess(span.start_time_unix_nano, span.end_time_unix_nano)
            self.assertLess(span.end_time_unix_nano, after + 10**9)
            self.assertEqual(span.flags, 0x301 if span.kind == SERVER else 0x101)
        facts = attributes(request)
        self.assertEqual([facts[name] for name in ("http.request.method", "http.route", "url.path", "url.scheme")],
                         ["POST", "/crawl/stream", "/crawl/stream", "http"])
        self.assertEqual((facts["http.response.status_code"], facts["forebay.outcome"], facts["forebay.request_id"]),
                         (200, "ok", "r-1"))
        stream_id = events[0]["stream_id"]
        facts = attributes(whole)
        self.assertEqual((facts["forebay.stream_id"], facts["forebay.outcome"]), (stream_id, "completed"))
        self.assertEqual((facts["forebay.urls.total"], facts["forebay.urls.failed"]), (3, 1))
        results = {event["index"]: event["result"] for event in events if event["type"] == "result"}
        for page in pages:
            facts = attributes(page)
            result = results[facts["forebay.index"]]
            self.assertEqual((facts["http.request.method"], facts["server.address"]), ("GET", "127.0.0.1"))
            if result["error"]:
                self.assertEqual((facts["error.type"], page.status.code), (result["error"]["code"], 2))
                continue
            self.assertEqual((facts["http.response.status_code"], page.status.code), (200, 0))
            stages = {part.name: attributes(part)["forebay.took_us"] for part in page.events}
            expected = {name: us for name, us in result["timings_us"].items() if us and name not in ("queue", "emit_wait")}
            self.assertEqual(stages, expected)
            times = [part.time_unix_nano for part in page.events]
            self.assertEqual(times, sorted(times))
            self.assertLessEqual(times[-1], page.end_time_unix_nano)
        self.assertNotIn(b"S3CRET", b"".join(message.SerializeToString() for message in collector.traces))
        self.assertIn("/v1/traces", {path for path, _ in collector.heads})
        for path, head in collector.heads:
            self.assertEqual((head["Content-Type"], head["x-scope"]), ("application/x-protobuf", "S3CRET value"), path)
        resource = attributes(collector.resources()[0])
        self.assertEqual((resource["service.name"], resource["process.pid"]), ("weir", running.child.pid))
        self.assertEqual(running.stop(), 0)

    def test_a_clients_word_counts_and_then_the_ratio(self):
        collector = self.collect()
        page = "<title>t</title><p>water"
        extract = lambda running, *fields: ask(running, "POST", "/extract", {"html": page}, fields)
        none = self.run_server(collector, "--otlp-traces-ratio", "0")
        for fields in ([], [UNSAMPLED], ["traceparent: nonsense"], [SAMPLED]):
            extract(none, *fields)
        [span] = self.await_spans(collector, 1)
        self.assertEqual((span.trace_id.hex(), attributes(span)["http.route"]), (TRACE, "/extract"))
        self.assertEqual(none.stop(), 0)
        self.assertEqual(len(collector.spans()), 1)
        collector.traces.clear()
        origin = Headers()
        self.addCleanup(origin.close)
        every = self.run_server(collector)
        extract(every, UNSAMPLED)
        ask(every, "POST", "/crawl", {"urls": [origin.url], "options": OPTIONS})
        spans = self.await_spans(collector, 3)
        [root] = [span for span in spans if span.kind == SERVER]
        self.assertEqual((root.parent_span_id, root.flags), (b"", 0x101))
        self.assertNotEqual(root.trace_id.hex(), TRACE)
        told = origin.requests[0]["traceparent"].split("-")
        [page] = [span for span in spans if span.kind == CLIENT]
        self.assertEqual(told[1:], [root.trace_id.hex(), page.span_id.hex(), "01"])
        self.assertEqual(every.stop(), 0)

    def test_a_socket_and_a_refusal_and_a_client_that_goes(self):
        collector, (_, origin) = self.collect(), server.shared()
        running = self.run_server(collector)
        with ws.Socket(running) as sock:
            for name in "ab":
                sock.crawl(name, [origin.page(1)], **OPTIONS)
                sock.stream(name)
        ask(running, "POST", "/crawl", {"urls": []})
        with Connection(running.address) as connection:
            body = {"urls": [origin.at("/stall", at="head")], "options": {**OPTIONS, "resume_window_s": 0}}
            connection.send(request("POST", "/crawl/stream", body))
            connection.read_head()
            connection.reset()
        spans = self.await_spans(collector, 9)
        [upgrade] = [span for span in spans if attributes(span).get("http.route") == "/crawl/ws"]
        self.assertEqual(attributes(upgrade)["http.response.status_code"], 101)
        streams = [span for span in spans if span.kind == INTERNAL and span.trace_id == upgrade.trace_id]
        self.assertEqual([span.parent_span_id for span in streams], [upgrade.span_id] * 2)
        pages = [span for span in spans if span.kind == CLIENT and span.trace_id == upgrade.trace_id]
        self.assertEqual({span.parent_span_id for span in pages}, {span.span_id for span in streams})
        [cut] = [span for span in spans if attributes(span).get("http.route") == "/crawl/stream"]
        self.assertEqual(attributes(cut)["forebay.outcome"], "aborted")
        rest = {span.kind: attributes(span) for span in spans if span.trace_id == cut.trace_id}
        self.assertEqual((rest[INTERNAL]["forebay.outcome"], rest[CLIENT]["error.type"]), ("cancelled", "cancelled"))
        [refused] = [span for span in spans if attributes(span).get("http.response.status_code") == 400]
        self.assertEqual((attributes(refused)["forebay.outcome"], refused.status.code), ("validation_error", 0))
        self.assertEqual(running.stop(), 0)

    def test_what_is_left_is_exported_at_the_end(self):
        collector = self.collect()
        running = self.run_server(collector, interval_ms=3_600_000)
        ask(running, "GET", "/latency", fields=[SAMPLED])
        self.assertEqual(running.stop(), 0)
        self.assertEqual([attributes(span)["http.route"] for span in collector.spans()], ["/latency"])


class Metrics(Otlp):
    def test_they_are_those_of_a_scrape(self):
        collector, (_, origin) = self.collect(), server.shared()
        running = self.run_server(collector, "--otlp-traces-ratio", "0")
        for n in range(3):
            ask(running, "POST", "/crawl", {"urls": [origin.page(n)], "options": OPTIONS})
        seen = len(collector.metrics)
        self.assertTrue(server.wait_until(lambda: len(collector.metrics) > seen + 1, 20))
        scraped = ask(running, "GET", "/metrics").body.decode()
        exported = collector.latest()
        rows = set(re.findall(r"^([a-z]\w*)", scraped, re.MULTILINE))
        named = re.findall(r"^# TYPE (\S+) ", scraped, re.MULTILINE)
        named = {re.sub("_total$", "", name) for name in named if {name, name + "_count"} & rows}
        self.assertEqual(set(exported), named)
        [point] = [point for point in exported["forebay_requests"].sum.data_points
                   if attributes(point) == {"endpoint": "crawl", "transport": "json", "status": "2xx"}]
        self.assertEqual(point.as_int, 3)
        requests = exported["forebay_requests"].sum
        self.assertEqual((requests.aggregation_temporality, requests.is_monotonic), (2, True))
        self.assertLess(point.start_time_unix_nano, point.time_unix_nano)
        times = exported["forebay_ttfb_seconds"]
        self.assertEqual(times.unit, "s")
        [point] = [point for point in times.histogram.data_points if attributes(point) == {"endpoint": "crawl", "transport": "json"}]
        self.assertEqual((point.count, sum(point.bucket_counts), len(point.bucket_counts)), (3, 3, len(point.explicit_bounds) + 1))
        self.assertEqual(list(point.explicit_bounds), sorted(point.explicit_bounds))
        rows = re.findall(r'^forebay_ttfb_seconds_bucket\{le="([^"]+)",endpoint="crawl",transport="json"\} (\d+)', scraped, re.MULTILINE)
        rows = rows or re.findall(r'^forebay_ttfb_seconds_bucket\{endpoint="crawl",transport="json",le="([^"]+)"\} (\d+)', scraped, re.MULTILINE)
        self.assertEqual([int(total) for _, total in rows], [sum(point.bucket_counts[:n + 1]) for n in range(len(rows))])
        self.assertGreater(point.sum, 0)
        self.assertEqual(exported["forebay_build_info"].gauge.data_points[0].as_int, 1)
        self.assertEqual(running.stop(), 0)

    def test_they_can_be_left_out(self):
        collector = self.collect()
        running = self.run_server(collector, "--otlp-metrics", "false")
        ask(running, "GET", "/latency", fields=[SAMPLED])
        self.await_spans(collector, 1)
        self.assertEqual(running.stop(), 0)
        self.assertEqual(collector.metrics, [])


class Collectors(Otlp):
    def works(self, running, count=20):
        """Requests are answered, and quickly, whatever the collector does."""
        began = time.monotonic()
        for _ in range(count):
            self.assertEqual(ask(running, "GET", "/latency", fields=[SAMPLED]).status, 200)
        self.assertLess(time.monotonic() - began, 60)

    def test_one_that_is_away_comes_back_and_nothing_is_lost(self):
        collector = self.collect()
        collector.status = 503
        running = self.run_server(collector)
        self.works(running)
        both = lambda state: [self.health(running)[signal] for signal in ("traces", "metrics")] == [state] * 2
        self.assertTrue(server.wait_until(lambda: both("down")))
        self.assertEqual(collector.spans(), [])
        collector.status = 200
        self.await_spans(collector, 20)
        self.assertTrue(server.wait_until(lambda: both("up")))
        health = self.health(running)
        self.assertEqual((health["sent"], health["dropped"], health["refused"]), (20, 0, 0))
        told = [line for line in running.lines if "otlp.endpoint" in line]
        for signal in ("traces", "metrics"):
            self.assertEqual(len([line for line in told if signal in line.rpartition("forebay::otlp: ")[2]]), 2, told)
        self.assertEqual(running.stop(), 0)

    def test_one_that_takes_only_traces_gets_all_of_them(self):
        collector = self.collect()
        collector.statuses = {"/v1/metrics": 404}
        running = self.run_server(collector)
        for round_ in range(1, 4):
            self.works(running, 5)
            self.await_spans(collector, 5 * round_)
            refused = sum(path == "/v1/metrics" for path, _ in collector.heads)
            more = lambda: sum(path == "/v1/metrics" for path, _ in collector.heads) > refused
            self.assertTrue(server.wait_until(more, 20))
        health = self.health(running)
        self.assertEqual((health["state"], health["traces"], health["metrics"]), ("down", "up", "down"))
        self.assertEqual((health["sent"], health["dropped"], health["refused"]), (15, 0, 0))
        told = [line for line in running.lines if "otlp.endpoint" in line]
        self.assertEqual(len(told), 1, told)
        metrics = ask(running, "GET", "/metrics", fields=[UNSAMPLED]).body.decode()
        self.assertIn('forebay_otlp_messages_total{signal="traces",outcome="failed"} 0', metrics)
        self.assertRegex(metrics, r'forebay_otlp_messages_total\{signal="metrics",outcome="failed"\} [1-9]')
        self.assertEqual(running.stop(), 0)

    def test_one_that_asks_for_time_gets_it(self):
        collector = self.collect()
        collector.statuses, collector.retry_after = {"/v1/traces": 429}, 3600
        running = self.run_server(collector)
        self.works(running, 5)
        count = lambda wanted: sum(path == wanted for path, _ in collector.heads)
        self.assertTrue(server.wait_until(lambda: count("/v1/traces") == 1, 20))
        seen = count("/v1/metrics")
        self.assertTrue(server.wait_until(lambda: count("/v1/metrics") > seen + 5, 20))
        self.assertEqual(count("/v1/traces"), 1, "the others go on")
        self.assertEqual(running.stop(), 0)
        self.assertEqual(count("/v1/traces"), 1, "at the end as well")

    def test_one_that_is_dead_slow_or_mad_costs_a_count(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{free.getsockname()[1]}"
            running = self.run_server(dead)
            self.works(running)
            self.assertTrue(server.wait_until(lambda: self.health(running)["failed"] > 2))
            metrics = ask(running, "GET", "/metrics", fields=[UNSAMPLED]).body.decode()
            for signal in ("traces", "metrics"):
                self.assertIn(f'forebay_otlp_messages_total{{signal="{signal}",outcome="taken"}} 0', metrics)
            self.assertEqual(running.stop(), 0)
        slow = self.collect()
        slow.delay = 30
        running = self.run_server(slow)
        self.works(running)
        began = time.monotonic()
        self.assertEqual(running.stop(), 0)
        self.assertLess(time.monotonic() - began, 15)
        for answer in (b"\x00\xff" * 4096, b"HTTP/1.1 999999 no\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
                       b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"):
            with Mad(answer) as mad, self.subTest(answer[:20]):
                running = self.run_server(mad.url)
                self.works(running, 5)
                self.assertTrue(server.wait_until(lambda: self.health(running)["failed"] > 1))
                self.assertEqual(self.health(running)["state"], "down")
                self.assertEqual(running.stop(), 0)

    def test_more_spans_than_there_is_room_for_are_counted(self):
        collector = self.collect()
        collector.status = 503
        running = self.run_server(collector, "--otlp-metrics", "false", interval_ms=1000)
        # Each page that is refused is a span, and costs little.
        urls = [f"http://10.0.0.1/{n}" for n in range(1000)]
        for _ in range(8):
            stream(running, urls, [SAMPLED])
        self.assertGreater(self.health(running)["dropped"], 0)
        metrics = ask(running, "GET", "/metrics", fields=[UNSAMPLED]).body.decode()
        self.assertRegex(metrics, r'forebay_otlp_spans_total\{outcome="dropped"\} [1-9]')
        self.assertEqual(running.stop(), 0)

    def test_by_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            authority, made = certificates(folder)
            collector = self.collect(tls=made)
            url = f"https://127.0.0.1:{collector.port}"
            running = self.run_server(url, "--fetch-extra-ca", authority)
            ask(running, "GET", "/latency", fields=[SAMPLED])
            self.await_spans(collector, 1)
            self.assertEqual(running.stop(), 0)
            running = self.run_server(url)
            self.assertTrue(server.wait_until(lambda: self.health(running)["failed"] > 0))
            self.assertEqual(running.stop(), 0)

    def test_settings_that_make_no_sense_are_told_at_the_start(self):
        for flags in (["--otlp-endpoint", "collector:4318"], ["--otlp-endpoint", "http://a:1", "--otlp-headers", "S3CRET"],
                      ["--otlp-traces-ratio", "1.5"]):
            ended = forebay("serve", "--listen", "127.0.0.1:0", *flags)
            self.assertNotEqual(ended.returncode, 0)
            told = (ended.stdout + ended.stderr).decode()
            self.assertIn("otlp.", told)
            self.assertNotIn("S3CRET", told)


class Mad:
    """Answers with these bytes, whatever is said to it."""

    def __init__(self, answer):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.answer = answer
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                one, _ = self.socket.accept()
            except OSError:
                return
            with one:
                try:
                    one.sendall(self.answer)
                    one.shutdown(socket.SHUT_WR)
                    while one.recv(65536):
                        pass
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


if __name__ == "__main__":
    unittest.main()
