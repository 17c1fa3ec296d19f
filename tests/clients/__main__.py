"""Clients that know nothing of this project, against the real server: `python tests/clients`.

schemathesis asks what /openapi.json says may be asked and compares the answers with what it says is
answered; the reference client of the Model Context Protocol calls the tools; a SearXNG is searched. The last
line is `N passed, N failed`.
"""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
sys.dont_write_bytecode = True


def main():
    suite = unittest.defaultTestLoader.discover(HERE, pattern="test_*.py")
    outcome = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    failed = len(outcome.failures) + len(outcome.errors)
    print(f"{outcome.testsRun - failed} passed, {failed} failed")
    return failed > 0 or outcome.testsRun == 0


if __name__ == "__main__":
    sys.exit(main())
