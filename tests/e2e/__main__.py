"""Runs the end-to-end tests: `python tests/e2e [NAME…]`, where a NAME is a part of a test's id.

The whole suite runs on servers of one core and again on servers of two; a file or a class with
`CORES = (2,)` asks nothing that the number of cores could change, and runs once. Each file of tests is
a process of its own with a server of its own, and TEST_JOBS of them run beside each other, those of
SLOW first (two for each CPU unless told: much of their time is waiting); a file with `ALONE = True`
loads the machine by itself and runs after the others. TEST_FULL runs what is large at its full size,
on two cores. Behind each test stands how long it took, and how much CPU time, its servers' too. The
last line is `N passed, N failed`.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import server  # noqa: E402

JOBS = int(os.environ.get("TEST_JOBS", "0")) or 2 * len(os.sched_getaffinity(0))
PART_S = 1800  # a file of tests that takes longer hangs
SLOWEST = 10
# Files that take longest, so that none of them is the last one to start; the others follow by size.
SLOW = ("test_ws", "test_jobs", "test_origins", "test_resume", "test_cache", "test_access")
TICKS = os.sysconf("SC_CLK_TCK")
TOTALS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


def children(pid):
    """What descends from a process and still runs."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
            mine = listed.read().split()
    except OSError:
        return
    for child in mine:
        yield child
        yield from children(child)


def cpu_s():
    """CPU time of this process, of what it has started, and of what that has started."""
    spent = sum(os.times()[:4])
    for pid in children(os.getpid()):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                fields = stat.read().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        spent += sum(map(int, fields[11:15])) / TICKS  # utime, stime, and those of its children: proc(5)
    return spent


class Timed(unittest.TextTestResult):
    """Says how long each test took, and what it cost."""

    def startTest(self, test):
        self.began, self.spent = time.monotonic(), cpu_s()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        took, spent = time.monotonic() - self.began, max(cpu_s() - self.spent, 0)
        self.stream.writeln(f"    {took:.1f} s, {spent:.1f} s of CPU: {test.id()}")


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def runs_on(test):
    """The numbers of cores that a test's servers have, one after the other."""
    if server.QUICK or server.FULL:
        return (2,)
    told = getattr(sys.modules.get(type(test).__module__), "CORES", (2, 1))
    return getattr(test, "CORES", told)


def chosen(names):
    """The tests whose id holds one of the names, by their file."""
    files = {}
    for test in each(unittest.defaultTestLoader.discover(HERE, pattern="test_*.py")):
        if not names or any(name in test.id() for name in names):
            files.setdefault(test.id().split(".")[0], []).append(test)
    return files


def run(name, cores, names):
    """One file's tests in this process; prints its totals last."""
    server.Server.cores = cores
    suite = unittest.TestSuite(test for test in chosen(names)[name] if cores in runs_on(test))
    runner = unittest.TextTestRunner(
        verbosity=2, buffer=True, stream=sys.stdout, resultclass=Timed
    )
    outcome = runner.run(suite)
    failed = len(outcome.failures) + len(outcome.errors) + len(outcome.unexpectedSuccesses)
    skipped = len(outcome.skipped)
    status = server.stop_shared()
    if status != 0:
        print(f"the server exited with {status}")
        failed += 1
    # A failed setUpClass is an error without a test of its own.
    passed = max(outcome.testsRun - failed - skipped, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


def part(name, cores, names):
    """One file's tests in a process of their own: its output with the totals taken off."""
    command = [sys.executable, HERE, f"--part={name}:{cores}", *names]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PART_S, check=False
        )
        lines = done.stdout.decode("utf-8", "replace").splitlines()
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").decode("utf-8", "replace").splitlines()
        lines.append(f"cut after {PART_S} s")
    totals = TOTALS.match(lines[-1]) if lines else None
    if totals is None:
        return lines, (0, 1, 0)
    return lines[:-1], tuple(int(count) for count in totals.groups())


def warm():
    """Compiles the extractor once, into the cache of all servers, before several of them would at once."""
    subprocess.run([server.FOREBAY, "extract", "-"], input=b"<p>a</p>", stdout=subprocess.DEVNULL, check=True, timeout=PART_S)


def parts(names):
    """File and cores of each part: those beside each other, the slowest first, and those alone."""
    beside, alone = [], []
    size = lambda name: os.path.getsize(f"{HERE}/{name}.py")
    rank = lambda name: (SLOW.index(name) if name in SLOW else len(SLOW), -size(name))
    files = chosen(names)
    for name in sorted(files, key=rank):
        mine = alone if getattr(sys.modules[name], "ALONE", False) else beside
        on = {cores for test in files[name] for cores in runs_on(test)}
        mine.extend((name, cores) for cores in sorted(on, reverse=True))
    return beside, alone


def main(names):
    totals, seconds, began = [], [], time.monotonic()

    def tell(done):
        for (name, cores), (lines, counts) in done:
            print(f"-- {name}, {cores} core{'s' * (cores > 1)}, {time.monotonic() - began:.0f} s after the start")
            print("\n".join(lines), flush=True)
            totals.append(counts)
            seconds.extend(line.strip() for line in lines if re.match(r" +[\d.]+ s, .* of CPU: ", line))

    warm()
    beside, alone = parts(names)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        running = {pool.submit(part, *which, names): which for which in beside}
        finished = concurrent.futures.as_completed(running)
        tell((running[future], future.result()) for future in finished)
    tell((which, part(*which, names)) for which in alone)
    passed, failed, skipped = (sum(column) for column in zip(*totals)) if totals else (0, 0, 0)
    print("slowest:", *sorted(seconds, key=lambda line: -float(line.split()[0]))[:SLOWEST], sep="\n  ")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed > 0 or passed == 0


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].startswith("--part="):
        which, _, count = sys.argv[1].removeprefix("--part=").partition(":")
        run(which, int(count), sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
