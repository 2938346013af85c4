"""Logs: one JSON object per line, the same six fields in each, and never a record's content."""

from __future__ import annotations

import ast
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

import cloister
from cloister.core.clock import Clock, parse_time
from cloister.core.errors import InputError, StorageError
from cloister.core.loggable import COUNTS, FLAGS, MEASURES, TIMES, WITHHELD, WORDS
from cloister.core.logging import (
    LogLevel,
    bind_correlation,
    configure_logging,
    get_logger,
    stop_logging,
)
from cloister.enclave.sealed.claims import SealViolation
from cloister.enclave.sealed.ends import log_violation

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
    log.debug("shown-too")
    assert [(line["event"], line["experiment_id"]) for line in lines()] == [
        ("shown", "experiment-1"),
        ("shown-too", "experiment-2"),
    ]


def test_what_a_field_is_declared_to_hold_passes_in_it(lines: Lines) -> None:
    get_logger("core").info(
        "e",
        round=7,
        epsilon=0.5,
        passed=True,
        none=None,
        site="hospital-a",
        word=Colour.RED,
        source=Path("runs/1"),
        name=UUID(int=5),
        begun_at=datetime(2026, 1, 2, tzinfo=UTC),
        at="2026-01-02T00:00:00.000000Z",
        kind="sha256:" + "1" * 64,
        place="cloister/core/hashes.py:31",
    )
    (line,) = lines()
    assert {name: line[name] for name in list(line)[6:]} == {
        "round": 7,
        "epsilon": 0.5,
        "passed": True,
        "none": None,
        "site": "hospital-a",
        "word": "red",
        "source": "runs/1",
        "name": "00000000-0000-0000-0000-000000000005",
        "begun_at": "2026-01-02T00:00:00.000000Z",
        "at": "2026-01-02T00:00:00.000000Z",
        "kind": "sha256:" + "1" * 64,
        "place": "cloister/core/hashes.py:31",
    }


def patients_error() -> type[Exception]:
    """A type that is named after a record, known by that name in a module, as a plug-in's may be."""
    kind = type("JaneDoe4711", (KeyError,), {"__module__": "json"})
    setattr(json, "JaneDoe4711", kind)  # noqa: B010
    return kind


RECORDS: dict[str, object] = {
    "a patient's number of nine digits": 123456789,
    "of ten": 9434765919,
    "of eleven": 12345678901,
    "a small number": 42,
    "a measured value": 187.25,
    "a number in text": "943476591",
    "a number behind a word": "mrn-943476591",
    "a date of birth": "1961-04-17",
    "a date of birth behind a word": "born-1961-04-17",
    "a date of birth as a time": datetime(1961, 4, 17, tzinfo=UTC),
    "a time of a record's": "1961-04-17T10:11:12Z",
    "a name": "Jane Doe",
    "a sentence": "no record of Jane Doe",
    "an address": "jane@example.org",
    "a path with a number": Path("dicom/943476591/image.dcm"),
    "nothing": "",
}


@pytest.mark.parametrize("what", RECORDS)
def test_what_may_be_a_records_is_withheld_in_every_field(what: str, lines: Lines) -> None:
    get_logger("core").info("e", value=RECORDS[what], name=RECORDS[what], patient=RECORDS[what])
    (line,) = lines()
    assert line["value"] == line["name"] == line["patient"] == WITHHELD


@pytest.mark.parametrize(
    "value",
    [
        "Doe",
        "Jane-Doe",
        "HIV-positive",
        True,
        UUID(int=5),
        str(UUID(int=5)),
        "a" * 64,
        Path("Doe"),
        Colour.RED,
    ],
)
def test_a_word_a_truth_or_an_id_is_withheld_where_none_is_declared(value: object, lines: Lines) -> None:
    get_logger("core").info("e", patient=value, round=value, at=value)
    (line,) = lines()
    assert line["patient"] == line["round"] == line["at"] == WITHHELD


def logged_fields() -> Iterator[str]:
    """The names of all fields that this program logs anywhere."""
    for file in Path(cloister.__file__).parent.rglob("*.py"):
        for one in ast.walk(ast.parse(file.read_text())):
            levels = ("debug", "info", "warning", "error")
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in levels:
                yield from (keyword.arg for keyword in one.keywords if keyword.arg is not None)


def test_each_field_that_is_logged_is_declared_and_none_is_dropped_for_its_name() -> None:
    declared = COUNTS | MEASURES | TIMES | FLAGS | WORDS
    assert {*logged_fields(), "place", "kind"} <= declared - set(SIX)


def test_a_violation_is_logged_with_its_call_and_time(lines: Lines) -> None:
    log_violation(SealViolation(3, "openat", "write", "2026-11-21T14:00:00.000000Z", 4.5))
    (line,) = lines()
    assert {name: line[name] for name in list(line)[6:]} == {
        "worker": 3,
        "call": "openat",
        "word": "write",
        "at": "2026-11-21T14:00:00.000000Z",
    }


def test_a_patients_number_is_no_count_in_a_field_of_counts_either(lines: Lines) -> None:
    get_logger("core").info("e", round=123456789, epsilon=9434765919, sites=-123456789)
    (line,) = lines()
    assert line["round"] == line["epsilon"] == line["sites"] == WITHHELD


def test_an_event_and_an_id_are_words_of_ours_too(lines: Lines, tmp_path: Path) -> None:
    with bind_correlation("patient 943476591"):
        get_logger("core").info("read the record of Jane Doe")
    configure_logging(path=tmp_path / "log.jsonl", level=LogLevel.INFO, experiment_id="trial 943476591")
    get_logger("core").info("e")
    first, second = lines()
    assert first["event"] == first["correlation_id"] == WITHHELD
    assert second["experiment_id"] == WITHHELD


@pytest.mark.parametrize(
    "address",
    [
        "host-10.0.0.1",
        "peer:10.0.0.1",
        "abcd:abcd:abcd:abcd:abcd:abcd:abcd:abcd",
        "fe80:a:b:c:d:e:f:a",
    ],
)
def test_an_address_that_has_the_form_of_a_word_is_redacted(address: str, lines: Lines) -> None:
    get_logger("core").info("e", site=address, name=Path("runs") / address)
    (line,) = lines()
    assert "[IP_REDACTED]" in str(line["site"])
    assert "[IP_REDACTED]" in str(line["name"])
    assert "10.0.0.1" not in json.dumps(line)
    assert ":abcd:" not in json.dumps(line)


@pytest.mark.parametrize("said", ["password:hunter", "mrn:12345", "patient-id:jd-77", "mrn-12345"])
def test_what_a_name_in_a_word_tells_is_redacted(said: str, lines: Lines) -> None:
    get_logger("core").info("e", reason=said)
    (line,) = lines()
    assert str(line["reason"]).endswith("_REDACTED]")


def test_a_type_that_is_no_built_in_one_is_told_by_the_one_it_comes_from(lines: Lines) -> None:
    log = get_logger("core")
    kind = patients_error()
    log.error("failed", error=kind("x"))
    log.error("failed", error=type("Made", (Exception,), {})())
    first, second = lines()
    assert first["error"] == "KeyError"
    assert second["error"] == "Exception"


@pytest.mark.parametrize(
    "value",
    [
        [CANARY],
        (CANARY,),
        {CANARY},
        {"a": CANARY},
        CANARY.encode(),
        bytearray(CANARY.encode()),
        CANARY + "x" * 200,
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
    get_logger("core").info("e", epsilon=float("nan"), delta=float("inf"))
    (line,) = lines()
    assert line["epsilon"] == line["delta"] == "[not finite]"


def test_a_field_cannot_take_the_place_of_the_six(lines: Lines) -> None:
    fields: dict[str, object] = dict.fromkeys(SIX, CANARY)
    get_logger("core").info("e", **fields)
    (line,) = lines()
    assert list(line) == SIX
    assert CANARY not in json.dumps(line)


def test_a_field_whose_name_could_be_content_is_withheld(lines: Lines) -> None:
    get_logger("core").info("e", **{"Mrs Example": 1, "x" * 41: 2, "round": 3})
    (line,) = lines()
    assert line["withheld_fields"] == 2
    assert line["round"] == 3
    assert "Example" not in json.dumps(line)


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
                log.info("turn", sites=thread, round=turn, padding="x" * 150)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = lines()
    assert len(written) == 400
    assert all(line["correlation_id"] == f"thread-{line['sites']}" for line in written)


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
    get_logger("core").info("still-here")
    assert lines()[0]["event"] == "still-here"


def test_a_full_disk_stops_the_log_and_not_the_run(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    log = get_logger("core")
    monkeypatch.setattr(os, "write", full)
    log.info("lost")
    log.info("lost-too")
    monkeypatch.undo()
    assert lines() == []
    assert capfd.readouterr().err.count("the log has stopped") == 1
