"""``pic`` in an operator's hands: what looking leaves as it was, and what is damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.cli.pic import main
from cloister.immune import ImmuneError, monitor
from cloister.immune.keeping.store import StateStore
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings
from cloister.immune.supervisor import Supervisor, read_status
from cloister.immune.watchdog import Mode
from tests.immune.keeping.test_detectors import calls, scorer

NAME = "tests.ward:give"
Pic = Callable[..., tuple[int, str, str]]


@monitor(name=NAME)
def give(amount: int) -> int:
    return sum(range(amount))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def pic(folder: Path, capfd: pytest.CaptureFixture[str]) -> Pic:
    """Runs a command on the folder: exit code, what it printed, and what it said on standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*words, "--directory", str(folder)])
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def begun(folder: Path) -> None:
    settings = ImmuneSettings.model_validate({"storage": {"directory": str(folder)}})
    with Protection(settings).start():
        for amount in range(300):
            give(amount % 5)


def tree(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*")}


LOOKS = (("status",), ("detectors", "list"), ("detectors", "rollback", NAME), ("logs", "export", "out.jsonl"))


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_who_only_looks_makes_nothing(words: tuple[str, ...], pic: Pic, folder: Path) -> None:
    assert pic(*words)[0] == 0
    assert tree(folder) == set()
    begun(folder)
    before = tree(folder)
    assert pic(*words)[0] == 0
    assert tree(folder) - before <= {"immune.db-wal", "immune.db-shm"}


def test_an_audit_of_a_fresh_folder_is_not_called_tampered_with(pic: Pic, folder: Path) -> None:
    code, out, _ = pic("logs", "export", "out.jsonl")
    assert (code, "Nothing was decided yet" in out, Path("out.jsonl").exists()) == (0, True, False)
    code, out, _ = pic("logs", "export", "out.jsonl", "--json")
    assert json.loads(out)["written"] is False


def test_one_that_was_removed_is_refused_where_the_state_tells_of_decisions(pic: Pic, folder: Path) -> None:
    assert pic("approve", NAME, "--ahead")[0] == 0
    for one in (*(folder / "audit/segments").glob("*"), *(folder / "audit/checkpoints").glob("*")):
        one.unlink()
    code, out, _ = pic("logs", "export", "out.jsonl")
    assert (code, out.split(":")[0]) == (1, "REFUSED")


def test_another_users_folder_is_refused_before_anything_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    monkeypatch.setattr("cloister.immune.operating.os.geteuid", lambda: user + 1)
    for reading in (True, False):
        with pytest.raises(ImmuneError, match="another user") as refused:
            Operator(folder, "tester", reading=reading)
        assert str(user) in (refused.value.hint or "")
    assert tree(folder) == set()


def test_every_command_says_that_the_state_is_damaged_until_somebody_acknowledges_it(
    pic: Pic, folder: Path
) -> None:
    begun(folder)
    (folder / "immune.db").write_bytes(os.urandom(20_000))
    for words in (*LOOKS, ("approve", NAME, "--ahead"), ("off",), ("on",)):
        Path("out.jsonl").unlink(missing_ok=True)
        Path("out.jsonl.verdict.json").unlink(missing_ok=True)
        code, out, err = pic(*words)
        assert code == 0, err
        assert f"{out}{err}".count("ALARM the state database was damaged") == 1, words
    assert "what was kept is damaged" in pic("detectors", "list")[1]
    assert "acknowledged: immune.db.damaged-" in pic("acknowledge")[1]
    assert "No damaged file" in pic("acknowledge")[1]
    _, out, err = pic("status")
    assert "ALARM" not in out + err
    assert pic("logs", "export", "out.jsonl")[0] == 0
    entries = [json.loads(line)["action"] for line in Path("out.jsonl").read_text().splitlines()]
    assert entries.count("state-damaged") == 1
    assert entries.count("acknowledged") == 1
    assert list(folder.glob("immune.db.acknowledged-*"))


def test_a_snapshot_is_one_functions(pic: Pic, folder: Path) -> None:
    store = StateStore(folder / "immune.db")
    with store.deciding() as connection:
        from cloister.immune.keeping.snapshots import take_snapshot

        number = take_snapshot(connection, NAME, 1.0, "a test")
    store.close()
    code, _, err = pic("detectors", "rollback", "other:function", str(number))
    assert (code, "immune.detector_unknown" in err, "pic detectors rollback other:function" in err) == (
        2,
        True,
        True,
    )
    code, out, err = pic("detectors", "rollback", NAME, str(number))
    assert (code, out.split(":")[0]) == (0, "rolled-back"), err


def test_only_a_function_that_somebody_knows_is_approved_unless_it_is_said_to_be_ahead(
    pic: Pic, folder: Path
) -> None:
    code, _, err = pic("approve", "typo:give")
    assert (code, "immune.function_unknown" in err, "--ahead" in err) == (2, True, True)
    begun(folder)
    assert pic("approve", NAME)[0] == 0
    assert pic("deploy", NAME)[0] == 0
    assert pic("deploy", "later:give")[0] == 2
    assert pic("deploy", "later:give", "--ahead")[0] == 0


def test_a_function_that_a_running_process_watches_is_known_before_anything_is_kept_of_it(
    folder: Path,
) -> None:
    settings = ImmuneSettings.model_validate({"storage": {"directory": str(folder)}})
    with Protection(settings).start() as protection, Operator(folder, "tester", reading=True) as operator:
        give(1)
        protection._status.write()
        operator.require_known(NAME)


def test_safe_mode_is_said_at_the_start_shown_in_the_status_and_ended_by_a_command(
    pic: Pic, folder: Path
) -> None:
    assert "watchdog" not in pic("status")[1]
    assert pic("watchdog", "reset")[0] == 2
    file = folder / "watchdog.json"
    file.write_text(
        '{"at": "", "mode": "safe-mode", "pid": null, "reason": "it ended four times", "restarts": 3}'
    )
    said: list[tuple[Mode, str]] = []
    watched = Supervisor(
        ["true"], health=lambda: True, status=file, announce=lambda one: said.append((one.mode, one.reason))
    )
    watched.step()
    watched.step()
    assert said == [(Mode.SAFE, "it ended four times")]
    _, out, _ = pic("status")
    assert "SAFE-MODE it ended four times" in out
    assert "pic watchdog reset" in out
    assert json.loads(pic("status", "--json")[1])["watchdog"]["mode"] == "safe-mode"
    assert pic("watchdog", "reset")[0] == 0
    watched.step()
    watched.close()
    assert said[-1] == (Mode.WATCHING, "")
    found = read_status(file)
    assert found is not None
    assert found.mode is Mode.WATCHING


def test_all_candidates_of_a_function_that_passed_are_promoted_by_what_they_name(
    pic: Pic, folder: Path
) -> None:
    from cloister.immune.keeping import DetectorRegistry, DetectorState, pattern_key

    store = StateStore(folder / "immune.db")
    registry = DetectorRegistry(store, pattern_key(folder), 90.0, str)
    for number, provenance in enumerate(
        ("size 80x median", "size 5x median", "duration 9x median", "size 2x")
    ):
        made, _ = registry.store_detector(NAME, f"{number}".encode(), 80.0, provenance)
        if number < 3:
            registry.validate(made.id, calls(0), scorer)
    store.close()
    assert pic("detectors", "promote", "other:function", "--all-passed")[0] == 2
    assert pic("detectors", "promote", NAME)[0] == 2
    assert pic("detectors", "promote", "1", "--feature", "size")[0] == 2
    assert pic("detectors", "promote", NAME, "--feature", "caller")[0] == 2
    code, out, err = pic("detectors", "promote", NAME, "--feature", "size")
    assert (code, out.count("detector-promoted")) == (0, 2), err
    with Operator(folder, "tester") as operator:
        states = [one.state for one in operator.detectors()]
    assert states == [
        DetectorState.ACTIVE,
        DetectorState.ACTIVE,
        DetectorState.CANDIDATE,
        DetectorState.CANDIDATE,
    ]


def test_another_trial_of_what_failed_is_asked_for_listed_and_recorded(pic: Pic, folder: Path) -> None:
    from cloister.immune.keeping import DetectorRegistry, pattern_key

    store = StateStore(folder / "immune.db")
    registry = DetectorRegistry(store, pattern_key(folder), 90.0, str)
    for number in range(2):
        made, _ = registry.store_detector(NAME, b"%d" % number, 80.0, "size 80x median")
        registry.validate(made.id, calls(6), scorer)
    store.close()
    code, out, err = pic("detectors", "promote", "1")
    assert (code, "pic detectors retry" in err) == (2, True)
    code, out, err = pic("detectors", "retry", "1", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "happened": "retry-asked",
        "function": NAME,
        "reason": "6 of 100 ordinary calls flagged: it is tried again on 100 from now on",
        "detector": 1,
    }
    code, out, err = pic("detectors", "retry", "2")
    assert (code, out.split(":")[0]) == (0, "retry-asked"), err
    code, out, err = pic("detectors", "retry", "1")
    assert (code, "immune.not_failed" in err, "pic detectors list" in err) == (2, True, True)
    assert "to be tried again" in " ".join(pic("detectors", "list")[1].split())
    listed = json.loads(pic("detectors", "list", "--json")[1])["detectors"]
    assert [(one["passed"], one["retry_at"] is None) for one in listed] == [(False, False)] * 2
    assert pic("detectors", "promote", "1")[0] == 2
    assert pic("logs", "export", "out.jsonl")[0] == 0
    entries = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    asked = [one for one in entries if one["action"] == "retry-asked"]
    assert [(one["event_type"], one["function"]) for one in asked] == [("validation", NAME)] * 2
    assert all("; by " in one["reason"] for one in asked)
    assert "Example:" in pic_help("detectors", "retry")


def pic_help(*words: str) -> str:
    import contextlib
    import io

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return shown.getvalue()
