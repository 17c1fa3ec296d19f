"""Runs the end-to-end tests: `python tests/e2e [NAME…]`, where a NAME is a part of a test's id.

The whole suite runs on a server of one core and again on one of two; the tests of the harness
itself run once. The last line is `N passed, N failed`.
"""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import server  # noqa: E402


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def chosen(names, once):
    """The tests whose id holds one of the names; only those of the harness if `once`."""
    tests = each(unittest.defaultTestLoader.discover(HERE, pattern="test_*.py"))
    fits = [test for test in tests if not names or any(name in test.id() for name in names)]
    return unittest.TestSuite(test for test in fits if test.id().startswith("test_harness") == once)


def run(title, suite):
    """Passed, failed, skipped."""
    if not suite.countTestCases():
        return 0, 0, 0
    print(f"-- {title}: {suite.countTestCases()} tests", flush=True)
    outcome = unittest.TextTestRunner(verbosity=2, buffer=True, stream=sys.stdout).run(suite)
    failed = len(outcome.failures) + len(outcome.errors) + len(outcome.unexpectedSuccesses)
    skipped = len(outcome.skipped)
    # A failed setUpClass is an error without a test of its own.
    return max(outcome.testsRun - failed - skipped, 0), failed, skipped


def main(names):
    totals = [run("harness", chosen(names, once=True))]
    for cores in (2,) if server.QUICK else (1, 2):
        server.Server.cores = cores
        totals.append(run(f"server on {cores} core{'s' * (cores > 1)}", chosen(names, once=False)))
        status = server.stop_shared()
        if status != 0:
            print(f"the server exited with {status}")
            totals.append((0, 1, 0))
    passed, failed, skipped = (sum(column) for column in zip(*totals))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
