"""Logs: one JSON object per line, the same six fields in each, and never a record's content."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import Clock, parse_time
from cloister.core.errors import InputError, StorageError
from cloister.core.logging import (
    MAX_TEXT,
    WITHHELD,
    LogLevel,
    bind_correlation,
    configure_logging,
    get_logger,
    stop_logging,
)

CANARY = "canary-7f3a"
SIX = ["timestamp", "level", "event", "room", "experiment_id", "correlation_id"]
Lines = Callable[[], list[dict[str, object]]]


class Colour(StrEnum):
    RED = "red"


class Arraylike:
    def __repr__(self) -> str:
        return CANARY

    __str__ = __repr__


@pytest.fixture
def lines(tmp_path: Path, clock: Clock) -> Iterator[Lines]:
    path = tmp_path / "log.jsonl"
    configure_logging(path=path, level=LogLevel.INFO, experiment_id="experiment-1", clock=clock)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    stop_logging()


def test_each_line_has_the_six_fields_first(lines: Lines) -> None:
    log = get_logger("privacy")
    log.info("round.finished", round=3, epsilon=1.25)
    with bind_correlation("job-1"):
        log.warning("site.slow", site="hospital-a")
        with bind_correlation("job-2"):
            log.error("site.failed")
    log.error("closed")
    written = lines()
    assert [list(line)[:6] for line in written] == [SIX] * 4
    assert written[0] == {
        "timestamp": "2026-11-21T14:00:00.000000Z",
        "level": "info",
        "event": "round.finished",
        "room": "privacy",
        "experiment_id": "experiment-1",
        "correlation_id": None,
        "round": 3,
        "epsilon": 1.25,
    }
    assert [line["correlation_id"] for line in written] == [None, "job-1", "job-2", None]
    assert [line["level"] for line in written] == ["info", "warning", "error", "error"]
    parse_time(str(written[0]["timestamp"]))


def test_lines_below_the_level_are_not_written(lines: Lines, tmp_path: Path) -> None:
    log = get_logger("core")
    log.debug("hidden")
    log.info("shown")
    configure_logging(path=tmp_path / "log.jsonl", level=LogLevel.DEBUG, experiment_id="experiment-2")
    log.debug("shown too")
    assert [(line["event"], line["experiment_id"]) for line in lines()] == [
        ("shown", "experiment-1"),
        ("shown too", "experiment-2"),
    ]


def test_short_scalars_pass(lines: Lines) -> None:
    get_logger("core").info(
        "e",
        number=7,
        share=0.5,
        yes=True,
        none=None,
        text="short",
        colour=Colour.RED,
        path=Path("runs/1"),
        job=UUID(int=5),
        when=datetime(2026, 1, 2, tzinfo=UTC),
        digest="sha256:" + "1" * 64,
    )
    (line,) = lines()
    assert {name: line[name] for name in list(line)[6:]} == {
        "number": 7,
        "share": 0.5,
        "yes": True,
        "none": None,
        "text": "short",
        "colour": "red",
        "path": "runs/1",
        "job": "00000000-0000-0000-0000-000000000005",
        "when": "2026-01-02T00:00:00.000000Z",
        "digest": "sha256:" + "1" * 64,
    }


@pytest.mark.parametrize(
    "value",
    [
        [CANARY],
        (CANARY,),
        {CANARY},
        {"a": CANARY},
        CANARY.encode(),
        bytearray(CANARY.encode()),
        CANARY + "x" * MAX_TEXT,
        Arraylike(),
        lambda: CANARY,
        range(3),
        datetime(2026, 1, 2),  # noqa: DTZ001 - a time without a zone
        complex(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_withheld(value: object, lines: Lines) -> None:
    get_logger("core").info("e", value=value)
    (line,) = lines()
    assert line["value"] == WITHHELD
    assert CANARY not in json.dumps(line)


def test_arrays_of_records_are_withheld(lines: Lines) -> None:
    numpy = pytest.importorskip("numpy")
    get_logger("core").info(
        "e", rows=numpy.array([[1.5, 2.5]]), one=numpy.array(3.25), scalar=numpy.float32(1.5)
    )
    (line,) = lines()
    assert line["rows"] == line["one"] == line["scalar"] == WITHHELD


def test_of_an_exception_only_type_or_code_pass(lines: Lines) -> None:
    log = get_logger("core")
    try:
        {}[CANARY]
    except KeyError as error:
        log.error("failed", error=error, exc_info=True, stack_info=True)
    log.error("refused", error=InputError("input.syntax", CANARY, CANARY, details=[CANARY]))
    first, second = lines()
    assert first["error"] == "KeyError"
    assert second["error"] == "input.syntax"
    assert CANARY not in json.dumps([first, second])
    assert "Traceback" not in json.dumps([first, second])


def test_numbers_that_json_lacks_are_named(lines: Lines) -> None:
    get_logger("core").info("e", a=float("nan"), b=float("inf"))
    (line,) = lines()
    assert line["a"] == line["b"] == "[not finite]"


def test_a_field_cannot_take_the_place_of_the_six(lines: Lines) -> None:
    fields: dict[str, object] = dict.fromkeys(SIX, CANARY)
    get_logger("core").info("e", **fields)
    (line,) = lines()
    assert list(line) == SIX
    assert CANARY not in json.dumps(line)


def test_a_field_whose_name_could_be_content_is_withheld(lines: Lines) -> None:
    get_logger("core").info("e", **{"Mrs Example": 1, "x" * 41: 2, "fine": 3})
    (line,) = lines()
    assert line["withheld_fields"] == 2
    assert line["fine"] == 3
    assert "Example" not in json.dumps(line)


def test_personal_data_in_any_text_is_replaced(lines: Lines) -> None:
    with bind_correlation("jane@example.org"):
        get_logger("core").info(
            "sent to jane@example.org", ip="10.1.2.3", card=4111111111111111, ssn="078-05-1120"
        )
    (line,) = lines()
    assert line["event"] == "sent to [email]"
    assert line["correlation_id"] == "[email]"
    assert line["ip"] == "[ip]"
    assert line["card"] == WITHHELD
    assert line["ssn"] == "[ssn]"


@given(
    st.text(max_size=300),
    st.dictionaries(
        st.text(min_size=1, max_size=50), st.integers() | st.floats() | st.text(max_size=300), max_size=4
    ),
)
def test_whatever_is_logged_is_one_json_object_on_one_line(
    lines: Lines, event: str, fields: dict[str, object]
) -> None:
    before = len(lines())
    get_logger("core").info(event, **fields)
    written = lines()
    assert len(written) == before + 1
    assert list(written[-1])[:6] == SIX
    assert all(value is None or isinstance(value, str | int | float) for value in written[-1].values())


def test_many_threads_write_whole_lines(lines: Lines) -> None:
    log = get_logger("core")

    def work(thread: int) -> None:
        with bind_correlation(f"thread-{thread}"):
            for turn in range(50):
                log.info("turn", thread=thread, turn=turn, padding="x" * 150)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = lines()
    assert len(written) == 400
    assert all(line["correlation_id"] == f"thread-{line['thread']}" for line in written)


def test_nothing_is_written_before_it_is_configured_or_after_it_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop_logging()
    log = get_logger("core")
    log.error("before")
    configure_logging(path=tmp_path / "log", level=LogLevel.INFO, experiment_id="e")
    log.error("between")
    stop_logging()
    log.error("after")
    assert (tmp_path / "log").read_text().count("\n") == 1
    assert capfd.readouterr() == ("", "")


def test_without_a_path_lines_go_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(path=None, level=LogLevel.INFO, experiment_id="e")
    get_logger("core").info("shown")
    stop_logging()
    out, err = capfd.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "shown"


def test_the_file_is_its_owners_alone_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for event in ("one", "two"):
        configure_logging(path=path, level=LogLevel.INFO, experiment_id="e")
        get_logger("core").info(event)
        stop_logging()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n") == 2


def test_a_log_that_cannot_be_opened_leaves_the_one_before(lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        configure_logging(path=tmp_path / "absent" / "log", level=LogLevel.INFO, experiment_id="e")
    get_logger("core").info("still here")
    assert lines()[0]["event"] == "still here"


def test_a_full_disk_stops_the_log_and_not_the_run(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    log = get_logger("core")
    monkeypatch.setattr(os, "write", full)
    log.info("lost")
    log.info("lost too")
    monkeypatch.undo()
    assert lines() == []
    assert capfd.readouterr().err.count("the log has stopped") == 1
