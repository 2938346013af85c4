"""Prints how many tests passed, from pytest's JUnit report: neither failed nor skipped.

Use: python tools/count_passed.py REPORT
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

NOT_PASSED = ("failure", "error", "skipped")


def count_passed(report: Path) -> int:
    """Counts the test cases without a failure, error or skip."""
    cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314 - written by our own pytest # nosec B314
    return sum(all(case.find(tag) is None for tag in NOT_PASSED) for case in cases)


if __name__ == "__main__":
    print(count_passed(Path(sys.argv[1])))
