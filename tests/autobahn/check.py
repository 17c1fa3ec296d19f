#!/usr/bin/env python3
"""Judges the reports of Autobahn|Testsuite: check.py CASES_EXPECTED|any INDEX_JSON...

Prints how many cases showed which behaviour, names those that did not pass, and fails if there are
any or if cases are missing. NON-STRICT passes: the standard leaves the tested behaviour open.
INFORMATIONAL cases have no verdict.
"""

import collections
import json
import sys

PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
PASSED_CLOSE = {"OK", "INFORMATIONAL"}


def main() -> int:
    cases = {}
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            (agent,) = json.load(file).values()
            cases.update(agent)
    for key, label in (("behavior", "cases"), ("behaviorClose", "closing handshakes")):
        counts = collections.Counter(case[key] for case in cases.values())
        summary = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{len(cases)} {label}: {summary}")
    failed = [
        f"{name}: {case['behavior']}, close {case['behaviorClose']}"
        for name, case in cases.items()
        if case["behavior"] not in PASSED or case["behaviorClose"] not in PASSED_CLOSE
    ]
    failed.sort(key=lambda line: [int(part) for part in line.split(":")[0].split(".")])
    for line in failed:
        print(line)
    expected = len(cases) if sys.argv[1] == "any" else int(sys.argv[1])
    if len(cases) != expected:
        print(f"expected {expected} cases, found {len(cases)}")
    return 1 if failed or len(cases) != expected else 0


if __name__ == "__main__":
    sys.exit(main())
