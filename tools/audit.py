"""Asks pip-audit about every package in the given lock files and says plainly what came of it.

Exit 0: every package was looked up and none has a known vulnerability, or no advisory service could be
reached (then that is the only thing said). Exit 1: a vulnerability, or some packages could not be looked
up while others could. A look-up that did not happen never counts as a clean one.

Use: python tools/audit.py LOCK...
"""

import json
import subprocess
import sys
from dataclasses import dataclass

OFFLINE = "audit: no advisory service can be reached from here, so nothing was audited."
UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError")


@dataclass(frozen=True)
class Report:
    """What pip-audit found in one lock file."""

    audited: tuple[str, ...]
    skipped: tuple[str, ...]
    vulnerabilities: tuple[str, ...]


def parse(report: str) -> Report:
    """Reads pip-audit's JSON report."""
    packages = json.loads(report)["dependencies"]
    return Report(
        audited=tuple(f"{p['name']} {p['version']}" for p in packages if "skip_reason" not in p),
        skipped=tuple(p["name"] for p in packages if "skip_reason" in p),
        vulnerabilities=tuple(
            f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'none yet'}"
            for p in packages
            for v in p.get("vulns", ())
        ),
    )


def verdict(reports: list[Report]) -> tuple[int, list[str]]:
    """Decides the exit code and the lines to print."""
    audited = {name for report in reports for name in report.audited}
    skipped = {name for report in reports for name in report.skipped}
    vulnerabilities = sorted({line for report in reports for line in report.vulnerabilities})
    if not audited:
        return 0, [OFFLINE]
    if vulnerabilities:
        return 1, [f"audit: {len(vulnerabilities)} known vulnerabilities.", *vulnerabilities]
    if skipped:
        return 1, [f"audit: {len(audited)} packages are clean; not looked up:", *sorted(skipped)]
    return 0, [f"audit: {len(audited)} packages, no known vulnerability."]


def main(locks: list[str]) -> int:
    """Audits the lock files and prints the verdict."""
    if not locks:
        print(__doc__, file=sys.stderr)
        return 2
    reports = []
    for lock in locks:
        options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", *options, "--requirement", lock]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.lstrip().startswith("{"):
            reports.append(parse(done.stdout))
            continue
        last_line = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        if any(last_line.split(":")[0].endswith(name) for name in UNREACHABLE):
            reports.append(Report(audited=(), skipped=(f"all of {lock}",), vulnerabilities=()))
            continue
        print(f"audit: pip-audit failed on {lock}: {last_line}", file=sys.stderr)
        return 1
    code, lines = verdict(reports)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
