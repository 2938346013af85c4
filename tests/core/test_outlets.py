"""Whatever fails, warns or is logged in a process: its kind is told, and nothing of what it worked on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CANARY = "canary-4711-blood-pressure-187.25"

ACTS = {
    "an error that nobody caught": "raise ValueError(CANARY)",
    "an error with a cause, a note and a context": (
        "try:\n"
        "    try:\n"
        "        {}[CANARY]\n"
        "    except KeyError as error:\n"
        "        error.add_note(CANARY)\n"
        "        raise RuntimeError(CANARY) from error\n"
        "except RuntimeError:\n"
        "    raise OSError(22, CANARY, CANARY)"
    ),
    "an error of a type that is named after a record": "raise type(CANARY[:6], (Exception,), {})(CANARY)",
    "an error in a thread": (
        "def work():\n    raise ValueError(CANARY)\n"
        "import threading\nthread = threading.Thread(target=work, name=CANARY)\nthread.start(); thread.join()"
    ),
    "an error in a destructor": (
        "class Record:\n    def __del__(self):\n        raise ValueError(CANARY)\n"
        "record = Record()\ndel record"
    ),
    "a warning": "import warnings\nwarnings.simplefilter('always')\nwarnings.warn(CANARY)",
    "a warning of numpy": (
        "import numpy, warnings\nwarnings.simplefilter('always')\n"
        "numpy.array([1e300]).astype('float32'); warnings.warn(numpy.exceptions.ComplexWarning(CANARY))"
    ),
    "a line of a library without a handler": (
        "import logging\nlogging.getLogger('torch').error('row %s', CANARY)"
    ),
    "a line of a library with a handler, an error and fields": (
        "import logging\n"
        "handler = logging.StreamHandler(); handler.setFormatter(logging.Formatter('%(message)s %(args)s'))\n"
        "log = logging.getLogger('library'); log.addHandler(handler)\n"
        "try:\n    raise ValueError(CANARY)\n"
        "except ValueError:\n    log.exception('failed on %s', CANARY, stack_info=True)"
    ),
    "code that is named after a record": "exec(compile('raise ValueError(1)', CANARY + '.py', 'exec'))",
}

SCRIPT = """
import sys
from pathlib import Path
from cloister.core.logging import LogLevel, configure_logging
from cloister.core.outlets import guarded_outlets
CANARY = {canary!r}
configure_logging(path=Path({log!r}), level=LogLevel.DEBUG, experiment_id="trial")
guard = guarded_outlets()
guard.__enter__()
{act}
"""


def outcome(act: str, folder: Path) -> tuple[str, list[dict[str, object]]]:
    log = folder / "log.jsonl"
    script = SCRIPT.format(canary=CANARY, log=str(log), act=act)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    lines = log.read_text().splitlines()
    return done.stdout + done.stderr + log.read_text(), [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", ACTS)
def test_no_message_gets_out(name: str, tmp_path: Path) -> None:
    everything, lines = outcome(ACTS[name], tmp_path)
    assert CANARY not in everything
    assert CANARY[:12] not in everything
    if "library with" not in name and "without a handler" not in name:
        assert lines, "what happened is still told"
        assert set(lines[-1]) >= {"event", "room", "level"}


def test_the_kind_and_the_place_in_this_package_are_told(tmp_path: Path) -> None:
    act = "from cloister.core.hashes import sha256_hex\nsha256_hex(CANARY)"
    everything, lines = outcome(act, tmp_path)
    assert lines[-1]["event"] == "uncaught_error"
    assert lines[-1]["error"] == "TypeError"
    assert str(lines[-1]["place"]).startswith("cloister/core/hashes.py:")
    assert "uncaught error: TypeError at cloister/core/hashes.py:" in everything


def test_a_typed_error_is_told_by_its_code(tmp_path: Path) -> None:
    act = (
        "from cloister.core.errors import InputError\n"
        "raise InputError('input.syntax', CANARY, CANARY, details=[CANARY])"
    )
    everything, lines = outcome(act, tmp_path)
    assert lines[-1]["error"] == "input.syntax"
    assert CANARY not in everything


def test_the_canary_would_be_seen_without_the_guard(tmp_path: Path) -> None:
    for name, act in ACTS.items():
        unguarded = SCRIPT.replace("guard.__enter__()\n", "")
        log = tmp_path / "log.jsonl"
        done = subprocess.run(
            [sys.executable, "-c", unguarded.format(canary=CANARY, log=str(log), act=act)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert CANARY[:6] in done.stderr, name


def test_outside_of_the_block_everything_is_as_before() -> None:
    import logging
    import threading
    import warnings

    from cloister.core.outlets import guarded_outlets

    def hooks() -> tuple[object, ...]:
        return (
            sys.excepthook,
            threading.excepthook,
            sys.unraisablehook,
            warnings.showwarning,
            logging.getLogRecordFactory(),
        )

    before = hooks()
    with guarded_outlets():
        assert all(now is not then for now, then in zip(hooks(), before, strict=True))
    assert hooks() == before
