"""Jobs in Redis where something goes wrong on the way: while one comes to be, and while its log is read."""

import json
import os
import tempfile
import threading
import time
import unittest

import server
from client import ask
from invariants import broken
from providers import events_of
from redises import PATIENT, Fake, Redis, Refused, becomes, between, node
from server import QUICK, Server, wait_until
from test_access import bearer, new_key
from test_jobs import begin, durable, ended, post, read, state

TAKEOVER = ("--jobs-takeover-s", "2")


def makes(command):
    """Whether it is one of the steps by which a job comes to be."""
    word, first = command[0].upper(), b"".join(command[1:2])
    if word == b"EVAL":
        return any(mark in first for mark in (b"'creating'", b"'XGROUP'", b"local held", b"~= ARGV[1]"))
    return word in (b"SCARD", b"SADD", b"ZADD", b"EXPIRE") and b":jobs:" in first


class Fault:
    """Does something to the line at one of the steps."""

    def __init__(self):
        self.left, self.end, self.lock = 0, "", threading.Lock()

    def arm(self, step, end):
        with self.lock:
            self.left, self.end = step, end

    def disarm(self):
        """Whether it has come to that."""
        with self.lock:
            done, self.left = self.left == 0, 0
            return done

    def judge(self, command):
        with self.lock:
            if not self.left or not makes(command):
                return ""
            self.left -= 1
            return "" if self.left else self.end


class Faults(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on two cores only: it is the same work again")
        self.origin = server.shared()[1]

    def pair(self, redis, judge):
        """A node that reaches Redis by a line, and one that has it by itself."""
        line = Fake(between(redis, judge))
        self.addCleanup(line.listener.close)
        one, other = node(line.url, *TAKEOVER), node(redis.url, *TAKEOVER)
        for each in (one, other):
            self.addCleanup(each.kill)
            self.assertTrue(becomes(each, "up", 30), each.output())
        return one, other

    def retried(self, target, urls, key, seconds=60):
        """The job, by the same request again for as long as it is told to come back."""
        end = time.monotonic() + seconds
        while True:
            answer = post(target, urls, [f"Idempotency-Key: {key}"])
            if answer.status == 202:
                return answer.json()
            self.assertEqual((answer.status, answer.json()["error"]["code"]), (503, "overloaded"), answer)
            self.assertGreaterEqual(int(answer.field("retry-after")), 1)
            self.assertLess(time.monotonic(), end, answer)
            time.sleep(0.2)

    def whole(self, target, job, total):
        done = ended(target, job)
        self.assertTrue(done, state(target, job))
        self.assertEqual((done["status"], done["successful"]), ("completed", total))
        self.assertEqual(broken(read(target, job), total), [])

    def test_who_asks_again_finds_a_job_that_runs_wherever_the_line_broke(self):
        fault, made, hits = Fault(), {}, 0
        urls = [self.origin.page(8300 + n, size=300) for n in range(6)]
        with Redis() as redis:
            one, other = self.pair(redis, fault.judge)
            for step in range(1, 40):
                # Each step, before and behind it; in a hurry one of both.
                ends = ("before", "after")[step % 2 :][:1] if QUICK else ("before", "after")
                for end in ends:
                    self.assertTrue(becomes(one, "up", 30), one.output())
                    fault.arm(step, end)
                    first = post(one, urls, [f"Idempotency-Key: {end}-{step}"])
                    self.assertIn(first.status, (202, 503), first)
                    broke = fault.disarm()
                    hits += broke
                    job = self.retried(other, urls, f"{end}-{step}")
                    if first.status == 202:
                        self.assertEqual(job["job_id"], first.json()["job_id"], (step, end))
                    self.whole(other, job, 6)
                    made[job["job_id"]] = (step, end)
                if not broke:
                    break
            self.assertGreaterEqual(hits, 13 if QUICK else 26)
            listed = ask(other, "GET", "/jobs?limit=100").json()["jobs"]
            self.assertEqual({job["job_id"] for job in listed}, set(made), "and no other job has come to be")
            # What was begun and taken back is in no list for long.
            self.assertTrue(wait_until(lambda: redis.ask("SCARD", "forebay:jobs:active") == 0, 30))
            left = [key for key in redis.ask("KEYS", "forebay:job:*:meta") if redis.ask("HGET", key, "status") != b"completed"]
            self.assertEqual(left, [])

    def test_a_node_that_dies_while_it_makes_a_job_leaves_no_half_of_one(self):
        stuck, release = threading.Event(), threading.Event()

        def judge(command):
            if command[0] == b"EVAL" and b"'i', ARGV" in command[1]:
                stuck.set()
                release.wait(60)
                return "before"
            return ""

        urls = [self.origin.page(8320 + n, size=300) for n in range(6)]
        with Redis() as redis:
            one, other = self.pair(redis, judge)
            asking = threading.Thread(target=self.ask_in_vain, args=(one, urls, "dies"))
            asking.start()
            self.assertTrue(stuck.wait(30))
            one.kill()
            release.set()
            asking.join(30)
            refused = post(other, urls, ["Idempotency-Key: dies"])
            self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, "overloaded"), refused)
            self.assertEqual(ask(other, "GET", "/jobs").json()["jobs"], [])
            job = self.retried(other, urls, "dies")
            self.whole(other, job, 6)
            self.assertEqual([one["job_id"] for one in ask(other, "GET", "/jobs").json()["jobs"]], [job["job_id"]])

    def ask_in_vain(self, target, urls, key):
        try:
            post(target, urls, [f"Idempotency-Key: {key}"])
        except Exception:  # pylint: disable=broad-exception-caught
            pass  # it is killed meanwhile

    def test_a_key_whose_job_is_gone_may_be_used_again(self):
        urls, key = [self.origin.page(8340, size=300)], ["Idempotency-Key: again"]
        with Redis() as redis, node(redis.url, "--jobs-retention-s", "1") as one:
            self.assertTrue(becomes(one, "up"))
            job = begin(one, urls, fields=key)
            self.assertTrue(wait_until(lambda: ask(one, "GET", f"/jobs/{job['job_id']}").status == 404, 30))
            again = begin(one, urls, fields=key)
            self.assertNotEqual(again["job_id"], job["job_id"])

    def test_a_log_with_a_hole_ends_with_an_error(self):
        urls = [self.origin.page(8350 + n, size=300) for n in range(8)]
        with Redis() as redis, node(redis.url) as one:
            self.assertTrue(becomes(one, "up"))
            job = begin(one, urls)
            whole = durable(read(one, job))
            self.assertEqual(redis.ask("XDEL", f"forebay:job:{{{job['job_id']}}}:events", "5-0"), 1)
            events = durable(read(one, job))
            self.assertEqual(events[:-1], whole[:4])
            last = events[-1]
            self.assertEqual((last["type"], last["seq"], last["error"]["code"]), ("error", 4, "internal_error"))
            self.assertEqual(one.output().count("a job's log is broken"), 1)
            self.assertEqual(durable(read(one, job, "?after=4")), whole[5:])

    def test_links_are_not_followed_and_that_is_said(self):
        with Redis() as redis, node(redis.url) as one:
            self.assertTrue(becomes(one, "up"))
            refused = post(one, [self.origin.page(1)], follow={"depth": 1})
            self.assertEqual(refused.status, 400, refused)
            self.assertEqual(refused.json()["error"]["details"][0]["field"], "options.follow")
            self.assertEqual(post(one, [self.origin.page(1)], follow=None).status, 202)

    def test_pages_of_a_job_are_found_by_whose_it_is(self):
        (ann, first), (bob, second) = new_key("ann", "crawl,metrics"), new_key("bob", "crawl")
        url = self.origin.page(8360, size=2000)
        with tempfile.TemporaryDirectory() as folder, Redis() as redis:
            keys = os.path.join(folder, "keys.toml")
            with open(keys, "w", encoding="utf-8") as file:
                file.write(first + second)
            with Server("--redis-url", redis.url, *PATIENT, "--auth-keys-file", keys) as one:
                health = lambda: ask(one, "GET", "/healthz", fields=[bearer(ann)]).json()["redis"]  # noqa: E731
                self.assertTrue(wait_until(lambda: health()["state"] == "up"), one.output())
                job = ask(one, "POST", "/jobs", {"urls": [url], "options": {"robots": "ignore"}}, [bearer(ann)]).json()
                path = f"/jobs/{job['job_id']}"
                self.assertTrue(wait_until(lambda: ask(one, "GET", path, fields=[bearer(ann)]).json()["ended_at"], 30))
                lines = ask(one, "GET", f"{path}/events", fields=[bearer(ann)]).body.splitlines()
                title = next(event for event in map(json.loads, lines) if event["type"] == "result")["result"]["document"]["title"]

                def find(key):
                    _, events = events_of(one, {"query": title, "include_content": False}, [bearer(key)])
                    return [event["result"]["url"] for event in events if event["type"] == "result"]

                self.assertTrue(wait_until(lambda: find(ann) == [url], 20), find(ann))
                self.assertEqual(find(bob), [])

    def test_the_cores_of_every_node_take_pages_of_a_job(self):
        urls = [self.origin.page(8400 + n, size=300, latency="100ms") for n in range(400)]
        with Redis() as redis:
            nodes = [node(redis.url, "--jobs-concurrency", "4") for _ in range(2)]
            for each in nodes:
                self.addCleanup(each.kill)
                self.assertTrue(becomes(each, "up"))
            job, working = begin(nodes[0], urls), set()

            def look():
                for row in consumers(redis, job):
                    facts = dict(zip(row[::2], row[1::2]))
                    if facts[b"pending"] > 0:
                        working.add(facts[b"name"])
                return state(nodes[1], job).get("ended_at")

            self.assertTrue(wait_until(look, 90))
            self.assertEqual(len(working), 2 * Server.cores, working)
            self.whole(nodes[1], job, 400)
            done = [approved(each) for each in nodes]
            self.assertEqual(sum(done), 400)
            self.assertGreater(min(done), 50, done)


def consumers(redis, job):
    """Who takes URLs of a job."""
    try:
        return redis.ask("XINFO", "CONSUMERS", f"forebay:job:{{{job['job_id']}}}:urls", "w")
    except Refused:
        return []


def approved(target):
    """Pages that a node has fetched."""
    lines = ask(target, "GET", "/metrics").body.decode().splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith('forebay_pages_total{outcome="approved"}'))


if __name__ == "__main__":
    unittest.main()
