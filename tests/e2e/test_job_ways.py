"""Jobs in every kind of Redis, and what a primary's death costs them: pages fetched again, and nothing else."""

import time
import unittest

import server
from client import ask
from invariants import broken
from redises import Redis, Refused, becomes, cluster_of_six, sentinel_pair
from server import QUICK, Server, wait_until
from test_jobs import begin, durable, ended, post, read, state

URLS = 500


class Ways(unittest.TestCase):
    def setUp(self):
        if Server.cores == 1 and not QUICK:
            self.skipTest("on two cores only: it is the same work again")
        self.origin = server.shared()[1]

    def nodes(self, url, count=2):
        flags = ("--jobs-takeover-s", "2", "--redis-timeout-ms", "2000", "--redis-lookup-timeout-ms", "1000")
        nodes = [Server("--redis-url", url, *flags) for _ in range(count)]
        for each in nodes:
            self.addCleanup(each.kill)
            self.assertTrue(becomes(each, "up", 30), each.output())
        return nodes

    def whole(self, targets, job, total):
        """The job has ended well, each index in exactly one result, and every node says the same."""
        done = ended(targets[0], job, 120)
        self.assertTrue(done, [state(target, job) for target in targets])
        self.assertEqual((done["status"], done["successful"]), ("completed", total), done)
        logs = [durable(read(target, job)) for target in targets]
        self.assertEqual(broken(logs[0], total), [])
        self.assertTrue(all(log == logs[0] for log in logs))

    def everything(self, one, other):
        """What is asked of jobs, while nothing dies."""
        key = ("Idempotency-Key: ways",)
        urls = [self.origin.page(8000 + n, size=500) for n in range(40)]
        job = begin(one, urls, fields=key)
        self.assertEqual(job["where"], "redis")
        self.assertEqual(begin(other, urls, fields=key)["job_id"], job["job_id"])
        self.assertEqual(post(other, urls[:1], key).status, 409)
        self.whole([one, other], job, 40)
        self.assertEqual(durable(read(other, job, "?after=20")), durable(read(one, job))[21:])
        self.assertEqual(ask(other, "GET", "/jobs").json()["jobs"][0]["job_id"], job["job_id"])
        stalled = begin(one, [self.origin.at("/stall", at="head", n=n) for n in range(50)])
        self.assertTrue(wait_until(lambda: state(other, stalled)["status"] == "running"))
        self.assertEqual(ask(other, "DELETE", f"/jobs/{stalled['job_id']}").json()["status"], "cancelled")
        self.assertEqual(broken(read(one, stalled), 50), [])

    def through_a_death(self, targets, kill):
        """A primary dies in the midst of a job."""
        urls = [self.origin.page(8100 + n, size=600, latency="200ms") for n in range(URLS)]
        job = begin(targets[0], urls)
        self.assertTrue(wait_until(lambda: state(targets[0], job).get("successful", 0) > URLS // 8, 30))
        kill(job)
        self.whole(targets, job, URLS)

    def test_a_cluster_of_six_loses_the_primary_of_a_job(self):
        with cluster_of_six() as (nodes, url):
            targets = self.nodes(url)
            self.everything(*targets)

            def kill(job):
                victim = next(redis for redis in nodes if owns(redis, f"forebay:job:{{{job['job_id']}}}:meta"))
                victim.kill()

            self.through_a_death(targets, kill)

    def test_a_cluster_of_six_loses_the_primary_that_knows_which_jobs_there_are(self):
        with cluster_of_six() as (nodes, url):
            kill = lambda _: next(redis for redis in nodes if owns(redis, "forebay:jobs:active")).kill()  # noqa: E731
            self.through_a_death(self.nodes(url), kill)

    def test_a_user_who_may_do_no_more_than_the_readme_says(self):
        commands = "EVAL GET GETRANGE SET DEL EXISTS XADD XRANGE XDEL HSET HGETALL HMGET RPUSH LPOP LTRIM PEXPIRE TIME EXPIRE"
        may = " ".join(f"+{name.lower()}" for name in commands.split())
        kinds = "+@stream +@set +@sortedset +@hash +@bitmap"
        with Redis("user default off", f"user fore on >secret ~forebay:* {may} {kinds}") as redis:
            self.everything(*self.nodes(f"redis://fore:secret@{redis.address}"))

    def test_sentinels_name_another_primary(self):
        with sentinel_pair() as (primary, replica, url):
            targets = self.nodes(url)
            self.everything(*targets)
            self.assertTrue(wait_until(replica.follows))
            self.through_a_death(targets, lambda _: primary.kill())
            self.assertEqual(replica.ask("ROLE")[0], b"master")


def owns(redis, key):
    """Whether a node of a cluster has the key."""
    try:
        return redis.ask("ROLE")[0] == b"master" and redis.ask("EXISTS", key) == 1
    except Refused:
        return False  # MOVED


if __name__ == "__main__":
    unittest.main()
