"""Runs the end-to-end tests: `python tests/e2e [NAME…]`, where a NAME is a part of a test's id.

The whole suite runs on servers of one core and again on servers of two; the tests of the harness
itself run once. Each file of tests is a process of its own with a server of its own, and TEST_JOBS
of them run beside each other (3 unless told: most of their time is waiting); a file with
`ALONE = True` loads the machine by itself and runs after the others. The last line is
`N passed, N failed`.
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

JOBS = int(os.environ.get("TEST_JOBS", "3"))
PART_S = 900  # a file of tests that takes longer hangs
SLOWEST = 10
TOTALS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


class Timed(unittest.TextTestResult):
    """Says how long each test took."""

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        self.stream.writeln(f"    {time.monotonic() - self.began:.1f} s {test.id()}")


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


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
    suite = unittest.TestSuite(chosen(names)[name])
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


def parts(names):
    """File and cores of each part: those beside each other, the largest first, and those alone."""
    beside, alone = [], []
    for name in sorted(chosen(names), key=lambda name: -os.path.getsize(f"{HERE}/{name}.py")):
        for cores in (2,) if server.QUICK or name == "test_harness" else (2, 1):
            mine = alone if getattr(sys.modules[name], "ALONE", False) else beside
            mine.append((name, cores))
    return beside, alone


def main(names):
    totals, seconds = [], []

    def tell(done):
        for (name, cores), (lines, counts) in done:
            print(f"-- {name}, {cores} core{'s' * (cores > 1)}")
            print("\n".join(lines), flush=True)
            totals.append(counts)
            seconds.extend(line.strip() for line in lines if re.match(r" +[\d.]+ s test_", line))

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
