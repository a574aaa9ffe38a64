"""Checks kosoku's index.json: every case ran, and none failed or is NON-STRICT. Usage: check.py INDEX CASES"""

import json
import sys
from collections import Counter

GOOD = {"OK", "INFORMATIONAL"}


def main(path, expected):
    with open(path, encoding="utf-8") as file:
        agents = json.load(file)
    if len(agents) != 1:
        return f"{len(agents)} agents in {path}, expected one"
    cases = next(iter(agents.values()))

    bad = {
        name: (case.get("behavior"), case.get("behaviorClose"))
        for name, case in cases.items()
        if not {case.get("behavior"), case.get("behaviorClose")} <= GOOD
    }
    for name, (behavior, close) in sorted(bad.items()):
        print(f"case {name}: {behavior}, closing: {close}")
    counts = Counter(case.get("behavior") for case in cases.values())
    listed = ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common())
    print(f"conformance: {len(cases)} cases: {listed or 'none'}; {len(bad)} bad")
    if len(cases) != int(expected):
        return f"conformance: {len(cases)} cases ran, expected {expected}"
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else __doc__)
