"""Jobs: crawls in the background, in one process' memory and in the Redis that nodes share."""

import base64
import concurrent.futures
import hashlib
import hmac
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import schemas
from client import Connection, ask, origin_json, request
from invariants import broken
from server import FULL, QUICK, Origin, Server, wait_until
from test_access import new_key

ONCE = "on two cores only: it is the same work again"
FIRST = {"robots": "ignore", "formats": ["text"]}


def say(*words):
    print(*words, file=sys.__stdout__, flush=True)


def post(server, urls, fields=(), webhook=None, **options):
    body = {"urls": urls, "options": {**FIRST, **options}}
    if webhook:
        body["webhook"] = webhook
    return ask(server, "POST", "/jobs", body, fields)


def begin(server, urls, **more):
    response = post(server, urls, **more)
    if response.status != 202:
        raise AssertionError(f"refused: {response}")
    job = response.json()
    assert not schemas.wrong("Job", job), schemas.wrong("Job", job)
    assert response.field("location") == f"/jobs/{job['job_id']}", response
    return job


def state(server, job):
    response = ask(server, "GET", f"/jobs/{job['job_id']}")
    name = "Job" if response.status == 200 else "Refusal"
    assert not schemas.wrong(name, response.json()), schemas.wrong(name, response.json())
    return response.json()


def ended(server, job, seconds=60):
    return wait_until(lambda: state(server, job).get("ended_at") and state(server, job), seconds)


def read(server, job, query="", most=None, known=None):
    """The events of a job to its end, or the first `most` of them; `known` gets each as it comes."""
    events = [] if known is None else known
    with Connection(server.address) as connection:
        connection.send(request("GET", f"/jobs/{job['job_id']}/events{query}"))
        head = connection.read_head()
        if head.status != 200:
            raise AssertionError(f"refused: {head}")
        for line in connection.read_lines(head):
            events.append(json.loads(line))
            if most and len(events) >= most:
                break
    return events


def durable(events):
    return [event for event in events if "seq" in event]


class Receiver:
    """Takes webhooks; `statuses` are its answers, the last one again and again."""

    def __init__(self, *statuses, address="127.0.0.1"):
        self.statuses, self.calls = list(statuses), []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/else")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://{address}:{self.port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def signature(secret, headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class InMemory(unittest.TestCase):
    def test_a_job_is_done_without_a_reader_and_read_as_often_as_wanted(self):
        with Origin() as origin, Server() as target:
            urls = [origin.page(n, size=1000) for n in range(60)]
            job = begin(target, urls)
            self.assertEqual(job["where"], "memory")
            done = ended(target, job)
            self.assertEqual((done["status"], done["successful"], done["last_seq"]), ("completed", 60, 61))
            events = read(target, job)
            self.assertEqual(broken(events, 60), [])
            self.assertEqual(events[0]["stream_type"], "job")
            self.assertEqual(read(target, job, "?after=40"), durable(events)[41:])
            self.assertEqual(read(target, job, "?after=61"), [])
            sse = ask(target, "GET", f"/v1/jobs/{job['job_id']}/events", fields=(
                "Accept: text/event-stream", f"Last-Event-ID: {job['job_id']}.59"))
            self.assertEqual(sse.body.count(b"\nid: "), 2)
            self.assertIn(b"event: summary", sse.body)
            over = ask(target, "GET", f"/jobs/{job['job_id']}/events?after=61", fields=("Accept: text/event-stream",))
            self.assertEqual(over.status, 204)
            listed = ask(target, "GET", "/jobs").json()
            self.assertEqual([one["job_id"] for one in listed["jobs"]], [job["job_id"]])
            self.assertEqual(schemas.wrong("Jobs", listed), [])
            self.assertEqual(ask(target, "DELETE", f"/jobs/{job['job_id']}").json()["status"], "completed")
            metrics = ask(target, "GET", "/metrics").body.decode()
            self.assertIn('forebay_jobs_ended_total{end="completed"} 1', metrics)

    def test_readers_follow_a_job_that_runs_and_one_that_waits_for_its_turn(self):
        with Origin() as origin, Server("--jobs-running-max", "1", "--jobs-concurrency", "2") as target:
            urls = [origin.page(n, size=500, latency="20ms") for n in range(40)]
            first, second = begin(target, urls), begin(target, urls[:5])
            self.assertEqual(state(target, second)["status"], "queued")
            self.assertEqual(broken(read(target, second), 5), [])
            self.assertEqual(broken(read(target, first), 40), [])
            self.assertLessEqual(state(target, first)["ended_at"], state(target, second)["ended_at"])

    def test_delete_ends_what_runs_and_what_waits(self):
        with Origin() as origin, Server("--jobs-running-max", "1") as target:
            urls = [origin.at("/stall", at="head", n=n) for n in range(300)]
            running, waiting = begin(target, urls), begin(target, urls)
            wait_until(lambda: state(target, running)["status"] == "running")
            for job in (waiting, running):
                response = ask(target, "DELETE", f"/jobs/{job['job_id']}")
                self.assertEqual((response.status, response.json()["status"]), (200, "cancelled"))
                self.assertEqual(response.json()["cancelled"], 300)
                self.assertEqual(broken(read(target, job), 300), [])
            self.assertEqual(ask(target, "GET", "/healthz").json()["streams_running"], 0)

    def test_the_same_request_with_the_same_key_is_the_same_job(self):
        with Origin() as origin, Server() as target:
            key = ("Idempotency-Key: k1",)
            job = begin(target, [origin.page(1)], fields=key)
            self.assertEqual(begin(target, [origin.page(1)], fields=key)["job_id"], job["job_id"])
            self.assertEqual(post(target, [origin.page(2)], key).status, 409)

    def test_nobody_sees_the_job_of_another_key(self):
        keys = [new_key("ann", "crawl"), new_key("bob", "crawl"), new_key("eve", "metrics")]
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, Origin() as origin:
            file.write("\n".join(entry for _, entry in keys))
            file.flush()
            with Server("--auth-keys-file", file.name) as target:
                ann, bob, eve = ([f"Authorization: Bearer {key}"] for key, _ in keys)
                body = {"urls": [origin.page(1)]}
                job = ask(target, "POST", "/jobs", body, ann).json()
                path = f"/jobs/{job['job_id']}"
                for method, where in (("GET", path), ("DELETE", path), ("GET", f"{path}/events")):
                    self.assertEqual(ask(target, method, where, fields=bob).status, 404)
                    self.assertEqual(ask(target, method, where, fields=eve).status, 403)
                    self.assertEqual(ask(target, method, where, fields=ann).status, 200)
                self.assertEqual(ask(target, "GET", "/jobs", fields=bob).json()["jobs"], [])
                self.assertEqual(len(ask(target, "GET", "/jobs", fields=ann).json()["jobs"]), 1)

    def test_links_that_may_be_followed_count_like_urls_that_are_named(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, Origin() as origin:
            key, entry = new_key("ann", "crawl", "urls_per_min = 50\n")
            file.write(entry)
            file.flush()
            with Server("--auth-keys-file", file.name, "--drain-timeout-s", "1") as target:
                fields = [f"Authorization: Bearer {key}"]
                follow = lambda pages: post(target, [origin.page(1)], fields, follow={"depth": 1, "max_pages": pages})  # noqa: E731
                never = follow(60).json()["error"]
                self.assertEqual((never["code"], never["details"][0]["limit"]), ("too_many_urls", 50))
                self.assertEqual(follow(40).status, 202)
                self.assertEqual(follow(40).status, 429)

    def test_wrong_requests_are_refused_by_name(self):
        with Server("--jobs-urls-max", "2", "--jobs-body-bytes-max", "2000") as target:
            many = post(target, ["http://a.test/"] * 3)
            self.assertEqual((many.status, many.json()["error"]["code"]), (400, "too_many_urls"))
            order = post(target, ["http://a.test/"], order="input").json()["error"]
            self.assertEqual(order["details"][0]["field"], "options.order")
            self.assertEqual(post(target, ["http://a.test/" + "x" * 3000]).status, 413)
            hook = post(target, ["http://a.test/"], webhook={"url": "http://a/", "secret": "x"}).json()["error"]
            self.assertEqual(hook["details"][0]["field"], "webhook.secret")
            absent = "0" * 26
            for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
                self.assertEqual(ask(target, method, f"/jobs/{absent}{path}").status, 404)
            self.assertEqual(ask(target, "PUT", "/jobs").field("allow"), "GET, HEAD, POST, OPTIONS")
            self.assertEqual(ask(target, "GET", "/jobs?limit=0").status, 400)

    def test_no_result_is_lost_where_there_is_no_room_for_more(self):
        with Origin() as origin, Server("--jobs-bytes-max", "200000", cache_bytes_max=0) as target:
            job = begin(target, [origin.page(n, size=8000) for n in range(200)], formats=["text", "markdown"])
            self.assertTrue(wait_until(lambda: state(target, job)["result_bytes"] > 150_000, 30))
            time.sleep(1.5)
            one = state(target, job)
            time.sleep(1.5)
            two = state(target, job)
            self.assertEqual((one["successful"], one["status"]), (two["successful"], "running"))
            self.assertLess(two["successful"], 200)
            self.assertEqual(ask(target, "DELETE", f"/jobs/{job['job_id']}").json()["status"], "cancelled")
            self.assertEqual(broken(read(target, job), 200), [])

    def test_results_go_when_their_time_is_over(self):
        with Origin() as origin, Server("--jobs-retention-s", "1") as target:
            job = begin(target, [origin.page(1)])
            path = f"/jobs/{job['job_id']}"
            self.assertTrue(wait_until(lambda: ask(target, "GET", path).status == 404, 30))
            self.assertEqual(ask(target, "GET", "/jobs").json()["jobs"], [])

    def test_a_shutdown_lets_a_job_come_to_its_end(self):
        with Origin() as origin:
            target = Server("--drain-timeout-s", "60")
            job, events = begin(target, [origin.page(n, size=500, latency="100ms") for n in range(120)]), []
            reader = threading.Thread(target=read, args=(target, job), kwargs={"known": events})
            reader.start()
            self.assertTrue(wait_until(lambda: events))
            # Whichever core has nothing to do any more still has to fetch for the others.
            self.assertEqual(target.stop(), 0)
            reader.join(20)
            self.assertEqual(broken(events, 120), [])
            self.assertEqual((events[-1]["type"], events[-1]["successful"]), ("summary", 120))

    def test_a_shutdown_ends_a_job_with_a_typed_error_and_says_so(self):
        with Origin() as origin:
            target = Server("--drain-timeout-s", "1")
            job = begin(target, [origin.at("/stall", at="head", n=n) for n in range(50)])
            events = []
            reader = threading.Thread(target=read, args=(target, job), kwargs={"known": events})
            reader.start()
            self.assertTrue(wait_until(lambda: events))
            self.assertEqual(target.stop(), 0)
            reader.join(20)
            self.assertEqual(broken(events, 50), [])
            self.assertEqual((events[-1]["type"], events[-1]["error"]["code"]), ("error", "draining"))
            self.assertIn("a job in memory was ended by the shutdown", target.output())


class Webhooks(unittest.TestCase):
    SECRET = b"0123456789abcdef0123456789abcdef"

    def hook(self, receiver, **more):
        secret = "whsec_" + base64.b64encode(self.SECRET).decode()
        return {"url": receiver.url, "secret": secret, **more}

    def check(self, receiver, job, event):
        bodies = {body for _, body in receiver.calls}
        self.assertEqual(len(bodies), 1, "each attempt says the same")
        for headers, body in receiver.calls:
            self.assertEqual(headers["webhook-signature"], signature(self.SECRET, headers, body))
            self.assertEqual(headers["webhook-id"], f"msg_{job['job_id']}")
            self.assertLess(abs(time.time() - int(headers["webhook-timestamp"])), 60)
            self.assertEqual(headers["content-type"], "application/json")
        told = json.loads(receiver.calls[-1][1])
        self.assertEqual((told["type"], told["data"]["job_id"]), (event, job["job_id"]))

    def test_a_receiver_that_fails_first_is_told_again(self):
        with Origin() as origin, Receiver(500, 302, 204) as receiver, \
                Server("--jobs-webhook-backoff-ms", "20") as target:
            job = begin(target, [origin.page(1)], webhook=self.hook(receiver))
            self.assertTrue(wait_until(lambda: state(target, job)["webhook"]["state"] == "delivered", 30))
            self.assertEqual(state(target, job)["webhook"]["attempts"], 3)
            self.assertEqual(len(receiver.calls), 3, "no redirect is followed")
            self.check(receiver, job, "job.completed")
            metrics = ask(target, "GET", "/metrics").body.decode()
            self.assertIn('forebay_webhooks_total{outcome="delivered"} 1', metrics)

    def test_only_what_was_asked_for_is_told(self):
        with Origin() as origin, Receiver(204) as receiver, Server() as target:
            hook = self.hook(receiver, events=["job.cancelled"])
            done = begin(target, [origin.page(1)], webhook=hook)
            self.assertTrue(wait_until(lambda: state(target, done)["webhook"]["state"] == "unwanted"))
            job = begin(target, [origin.at("/stall", at="head")], webhook=hook)
            ask(target, "DELETE", f"/jobs/{job['job_id']}")
            self.assertTrue(wait_until(lambda: state(target, job)["webhook"]["state"] == "delivered"))
            self.check(receiver, job, "job.cancelled")

    def test_a_forbidden_address_and_a_receiver_that_never_answers_well_are_given_up(self):
        with Origin() as origin, Receiver(204, address="127.0.0.9") as secret, Receiver(503) as bad, \
                Server("--egress-deny", "127.0.0.9", "--jobs-webhook-backoff-ms", "10",
                       "--jobs-webhook-attempts-max", "3") as target:
            for receiver, expected in ((secret, (1, 0, "blocked_egress")), (bad, (3, 503, None))):
                job = begin(target, [origin.page(1)], webhook=self.hook(receiver))
                self.assertTrue(wait_until(lambda: state(target, job)["webhook"]["state"] == "failed", 30))
                hook = state(target, job)["webhook"]
                self.assertEqual((hook["attempts"], hook["last_status"], hook["last_error"]), expected)
            self.assertEqual(secret.calls, [])


class Redis:
    """A redis-server that writes everything to its AOF before it answers."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="forebay-jobs-")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
                   "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if not wait_until(self.answers, 20):
            raise RuntimeError("redis-server did not come up")

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def restart(self):
        """After a crash."""
        self.child.kill()
        self.child.wait()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def node(redis, *more):
    return Server("--redis-url", redis.url, "--jobs-takeover-s", "2", "--redis-timeout-ms", "3000",
                  "--redis-lookup-timeout-ms", "2000", *more)


class Crawls:
    """Resumable streams that are begun on whichever node lives, one after the other, and what their
    clients got of them."""

    PAGES = 20

    def __init__(self, nodes, origin, chance):
        self.nodes, self.origin, self.got, self.over = nodes, origin, {}, threading.Event()
        seeds = [random.Random(chance.random()) for _ in range(2)]
        self.threads = [threading.Thread(target=self.crawl, args=each) for each in enumerate(seeds)]
        for thread in self.threads:
            thread.start()

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def crawl(self, own, chance):
        first = 1_000_000 * (own + 1)
        while not self.over.is_set():
            urls = [self.origin.page(first + n, size=600, latency="100ms") for n in range(self.PAGES)]
            first += self.PAGES
            events = []
            try:
                body = {"urls": urls, "options": {**FIRST, "concurrency": 2, "resume_window_s": 900}}
                self.lines(chance.choice(self.nodes), request("POST", "/crawl/stream", body), events)
            except Exception:  # pylint: disable=broad-exception-caught
                time.sleep(0.05)  # that node is down
            if events:
                self.got[events[0]["stream_id"]] = durable(events)

    def lines(self, target, asking, events):
        with Connection(target.address) as connection:
            connection.send(asking)
            head = connection.read_head()
            if head.status == 200:
                for line in connection.read_lines(head):
                    events.append(json.loads(line))

    def logs(self, stream_id):
        """What each node shows of a stream."""
        shown = [[] for _ in self.nodes]
        for target, events in zip(self.nodes, shown):
            self.lines(target, request("GET", f"/streams/{stream_id}/events"), events)
        return [durable(events) for events in shown]

    def check(self, test):
        """Every node shows the same of every stream, whole; what its client got is the beginning of that.
        Of a node that died together with Redis the other nodes may know less, or nothing."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            shown = dict(zip(self.got, pool.map(self.logs, self.got)))
        whole = 0
        for stream_id, got in self.got.items():
            log = shown[stream_id][0]
            test.assertTrue(all(other == log for other in shown[stream_id]), shown[stream_id])
            if log:
                test.assertEqual(broken(log, self.PAGES), [])
                same = min(len(got), len(log) - 1)
                test.assertEqual(got[:same], log[:same])
                whole += log[-1]["type"] == "summary"
        say(f"{len(self.got)} streams, {whole} of them to their summary")
        test.assertGreater(whole, 0)


@unittest.skipUnless(shutil.which("redis-server"), "there is no redis-server")
class InRedis(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest(ONCE)

    def test_any_node_shows_lists_ends_and_tells_of_a_job(self):
        secret = b"a secret of thirty-two bytes ..."
        with Origin() as origin, Redis() as redis, Receiver(500, 204) as receiver, \
                node(redis, "--jobs-webhook-backoff-ms", "20") as one, \
                node(redis, "--jobs-webhook-backoff-ms", "20") as two:
            key = ("Idempotency-Key: k1",)
            hook = {"url": receiver.url, "secret": secret.decode()}
            urls = [origin.page(n, size=500) for n in range(30)]
            job = begin(one, urls, fields=key, webhook=hook)
            self.assertEqual(job["where"], "redis")
            self.assertEqual(begin(two, urls, fields=key, webhook=hook)["job_id"], job["job_id"])
            self.assertEqual(post(two, urls[:1], key).status, 409)
            events = read(two, job)
            self.assertEqual(broken(events, 30), [])
            self.assertEqual(durable(read(one, job)), durable(events))
            self.assertEqual(durable(read(one, job, "?after=20")), durable(events)[21:])
            self.assertEqual(ask(one, "GET", "/jobs").json()["jobs"][0]["job_id"], job["job_id"])
            self.assertTrue(wait_until(lambda: state(one, job)["webhook"]["state"] == "delivered", 30))
            self.assertEqual(len(receiver.calls), 2)
            for headers, body in receiver.calls:
                self.assertEqual(headers["webhook-signature"], signature(secret, headers, body))
            stalled = begin(one, [origin.at("/stall", at="head", n=n) for n in range(200)])
            self.assertTrue(wait_until(lambda: state(two, stalled)["status"] == "running"))
            ended_by = ask(two, "DELETE", f"/jobs/{stalled['job_id']}")
            self.assertEqual((ended_by.status, ended_by.json()["status"]), (200, "cancelled"))
            self.assertEqual(broken(read(one, stalled), 200), [])
            late = begin(one, [origin.at("/stall", at="head", n=n) for n in range(60)], deadline_ms=1500)
            done = ended(two, late)
            self.assertEqual((done["status"], done["error"], done["failed"]), ("failed", "deadline_exceeded", 60))
            self.assertEqual(broken(read(two, late), 60), [])

    def test_a_page_that_ends_its_node_each_time_is_given_up(self):
        with Origin() as origin, Redis() as redis:
            poison = origin.at("/stall", at="head", for_="1h")
            urls = [origin.page(n, size=600, latency="150ms") for n in range(40)]
            urls.insert(3, poison)
            hits = lambda: len(origin_json(origin, "/_requests?path=/stall")[1])  # noqa: E731
            alive, lost = node(redis), 0
            try:
                job = begin(alive, urls, timeout_ms=60_000)
                while lost < 10:
                    self.assertTrue(wait_until(lambda: hits() > lost or state(alive, job).get("ended_at"), 60))
                    if hits() <= lost:
                        break
                    alive.kill()
                    lost += 1
                    alive = node(redis)
                events = read(alive, job)
                self.assertEqual(broken(events, 41), [])
                found = {event["index"]: event["result"] for event in events if event["type"] == "result"}
                error = found.pop(3)["error"]
                self.assertEqual((error["code"], error["stage"], error["retryable"]), ("internal_error", "queue", False))
                self.assertIn("after 6 takeovers", error["message"])
                self.assertEqual([result["error"] for result in found.values()], [None] * 40, "its neighbours are done")
                self.assertEqual((hits(), lost), (7, 7))
                self.assertEqual((events[-1]["status"], events[-1]["failed"]), ("completed", 1))
            finally:
                alive.kill()

    def test_nothing_is_lost_or_doubled_whatever_dies(self):
        """A job and streams, while nodes are killed and Redis is. At its full size by

            TEST_JOB_URLS=20000 TEST_FOREBAY=target/debug/forebay TEST_LOADTEST=target/debug/loadtest \\
              target/venv/bin/python tests/e2e test_nothing_is_lost
        """
        total = int(os.environ.get("TEST_JOB_URLS", "2000" if FULL else "1000"))
        seed = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1 << 32)
        say("seed", seed)
        chance = random.Random(seed)
        with Origin() as origin, Redis() as redis:
            nodes = [node(redis) for _ in range(3)]
            done = threading.Event()
            kills, restarts = [0], [0]
            try:
                urls = [origin.page(n, size=600, latency="200ms") for n in range(total)]
                job = begin(nodes[0], urls)
                followed = []
                follower = threading.Thread(target=self.follow, args=(nodes, job, followed, done))
                follower.start()
                crawls = Crawls(nodes, origin, chance)
                began = time.monotonic()
                time.sleep(0.5)
                # A node that was only away comes back with pages that others have taken over.
                nodes[0].child.send_signal(signal.SIGSTOP)
                time.sleep(3)
                nodes[0].child.send_signal(signal.SIGCONT)
                limit = began + 60 + total / 20
                while time.monotonic() < limit:
                    time.sleep(chance.uniform(0.2, 1.5))
                    if self.finished(nodes, job):
                        break
                    if chance.random() < 0.3:
                        redis.restart()
                        restarts[0] += 1
                    else:
                        at = chance.randrange(3)
                        nodes[at].kill()
                        nodes[at] = node(redis)
                        kills[0] += 1
                spent = time.monotonic() - began
                crawls.end()
                follower.join(60)
                final = state(nodes[0], job)
                say(f"{total} URLs in {spent:.1f} s, nodes killed: {kills[0]}, Redis restarted: {restarts[0]}")
                logs = [durable(read(each, job)) for each in nodes]
                wrong = [event["result"]["error"] for event in logs[0] if event["type"] == "result" and event["result"]["error"]]
                self.assertEqual((final["status"], final["successful"]), ("completed", total), (final, wrong))
                self.assertEqual(broken(logs[0], total), [])
                self.assertTrue(logs[0] == logs[1] == logs[2], "every node shows the same log")
                self.assertEqual(durable(followed), logs[0], "a reader that went from node to node has all of it")
                urls_told = {event["index"]: event["result"]["url"] for event in logs[0] if event["type"] == "result"}
                self.assertEqual(urls_told, dict(enumerate(urls)))
                crawls.check(self)
            finally:
                done.set()
                crawls.over.set()
                for each in nodes:
                    each.kill()

    def finished(self, nodes, job):
        for each in nodes:
            try:
                return ask(each, "GET", f"/jobs/{job['job_id']}").json().get("ended_at")
            except (OSError, AssertionError, ValueError):
                continue
        return None

    def follow(self, nodes, job, followed, done):
        """Reads a job's events on whichever node lives, each time behind the last one it has."""
        at = 0
        while not done.is_set() and not (followed and followed[-1]["type"] in ("summary", "error")):
            seen = [event["seq"] for event in followed if "seq" in event]
            query = f"?after={seen[-1]}" if seen else ""
            at += 1
            try:
                read(nodes[at % 3], job, query, known=followed)
            except Exception:  # pylint: disable=broad-exception-caught
                time.sleep(0.05)  # that node or Redis is down


if __name__ == "__main__":
    unittest.main()
