"""Asks Bandit about every source file under the given folders and says plainly what came of it.

Exit 0: every file was read and nothing was found but what its line accepts by name (``# nosec B608``). Exit
1: a finding, or a file that could not be read. A scan of nothing never counts as a clean one.

Use: python tools/scan.py FOLDER...
"""

import json
import subprocess
import sys


def verdict(report: str) -> tuple[int, list[str]]:
    """Decides the exit code and the lines to print, from Bandit's JSON report."""
    found = json.loads(report)
    files = [name for name in found["metrics"] if name != "_totals"]
    findings = [
        f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_severity'].lower()}: "
        f"{one['issue_text']}"
        for one in found["results"]
    ]
    unread = [f"{one['filename']}: not read: {one['reason']}" for one in found["errors"]]
    if findings or unread:
        return 1, [f"scan: {len(findings)} findings, {len(unread)} files not read.", *findings, *unread]
    if not files:
        return 1, ["scan: there was nothing to scan."]
    return 0, [f"scan: {len(files)} files, no finding."]


def main(folders: list[str]) -> int:
    """Scans the folders and prints the verdict."""
    if not folders:
        print(__doc__, file=sys.stderr)
        return 2
    command = [
        sys.executable,
        "-m",
        "bandit",
        "--configfile",
        "pyproject.toml",
        "--format",
        "json",
        "--quiet",
    ]
    done = subprocess.run([*command, "--recursive", *folders], capture_output=True, text=True, check=False)
    if not done.stdout.lstrip().startswith("{"):
        last_line = (done.stderr.strip().splitlines() or ["Bandit said nothing"])[-1]
        print(f"scan: Bandit failed: {last_line}", file=sys.stderr)
        return 1
    code, lines = verdict(done.stdout)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
