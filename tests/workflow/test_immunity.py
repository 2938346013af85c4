"""cloister's own immune system: what it watches, what of it becomes evidence, how it stays out of the way."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from cloister.cli.failure import guarded
from cloister.core.clock import system_clock
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.core.logging import LogLevel, configure_logging, stop_logging
from cloister.core.settings import Settings
from cloister.evidence import StatementWriter, Subject, open_statement
from cloister.evidence.extract import log_stream
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import Incident, Violation
from cloister.federation import RefusalError
from cloister.federation.events import RoundFinished, SiteLeft
from cloister.immune import ImmuneError, ImmuneIncident, present, protect
from cloister.immune.acting.switch import ThrownBy
from cloister.immune.audit_event import AuditKind
from cloister.immune.audit_export import export_audit
from cloister.immune.audit_folder import AuditFolder
from cloister.immune.errors import CallBlocked
from cloister.immune.observation import Action, Decision, Entered, Observed
from cloister.immune.settings import ImmuneSettings
from cloister.immune.wrapping.importing import instrument
from cloister.immune.wrapping.monitor import gates
from cloister.workflow.immunity import STATE, WATCHED, immunity
from cloister.workflow.run import run_job
from cloister.workflow.workspace import Workspace, open_workspace
from tests.system.example_job import SITES, ExampleJob, run

SETTINGS = Settings()
TRAIN = "cloister.federation.site:SiteRuntime.train_round"
SUBJECT = Subject("job", "0" * 64)
REASON = "duration 41.7x median, p=3e-05"


def incident(function: str = TRAIN) -> ImmuneIncident:
    return ImmuneIncident(
        "behaviour-drift",
        "medium",
        f"{function}: {REASON}",
        "2026-11-21T14:00:00.000000Z",
        "nothing more is learned until it is approved",
        function,
        "9f2c81d07a44be1002c4e6a1f8d93b57",
    )


@dataclass(frozen=True)
class Seat:
    log: EvidenceLog
    writer: StatementWriter

    def incidents(self) -> list[Incident]:
        found = [
            open_statement(one.envelope).predicate for one in self.log.extract(self.writer.job_id).entries
        ]
        return [one for one in found if isinstance(one, Incident)]


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Callable[[str | None], Seat]]:
    """Makes a site that writes about a job, or with None as id about its own log."""
    store = EphemeralKeyStore()

    def make(job_id: str | None) -> Seat:
        name = f"site-{len(list(tmp_path.glob('*.log')))}"
        signer, origin = store.generate(name), f"cloister/site/{name}"
        log = EvidenceLog.create(tmp_path / f"{name}.log", origin=origin, signer=signer)
        return Seat(log, StatementWriter(log, signer, name, job_id or log_stream(origin), system_clock))

    yield make
    assert present() is None


# What is watched


@pytest.mark.parametrize("target", WATCHED)
def test_every_function_on_the_list_is_there_and_can_be_watched(target: str) -> None:
    import_module(target.partition(":")[0])
    done = instrument(target)
    try:
        assert done.names == (target,)
    finally:
        done.undo()


def test_a_job_has_what_touches_records_budgets_and_keys_counted_call_by_call(tmp_path: Path) -> None:
    calls: dict[str, int] = {}

    def watch(event: object) -> None:
        system = present()
        if isinstance(event, RoundFinished) and event.round == 1:
            assert system is not None
            functions = system.status()["functions"]
            calls.update({name: one["calls"] for name, one in functions.items()})  # type: ignore[union-attr,index,call-overload]

    outcome = run(ExampleJob().spec(tmp_path / "job"), tmp_path / "work", watch=watch)
    assert outcome.verdict.accepted
    assert outcome.noticed == ()
    short = {name.rpartition(":")[2]: count for name, count in calls.items() if count}
    site = {name.partition(".")[2]: count for name, count in short.items() if name.startswith("SiteRuntime.")}
    assert site == {"accept_folder": 3, "quote": 3, "train_round": 6, "release": 6}
    assert (short["HubRuntime.admit"], short["HubRuntime.aggregated"], short["load"]) == (3, 2, 1)
    assert (short["ReleaseService.release"], short["_SealedRounds.train"]) == (3, 6)
    assert short["BudgetLedger.settle"] >= 6
    assert present() is None
    state = tmp_path / "work" / STATE
    assert (state / "immune.db").stat().st_mode & 0o777 == 0o600


def test_what_a_job_taught_is_there_for_the_next_one(tmp_path: Path) -> None:
    learned = []

    def watch(event: object) -> None:
        system = present()
        if isinstance(event, RoundFinished) and event.round == 1 and system is not None:
            learned.append(system.brain.cell(TRAIN).detector.learned)

    for number in range(2):
        run(ExampleJob().spec(tmp_path / f"job{number}"), tmp_path / "work", watch=watch)
    assert learned[0] == 6
    assert learned[1] == 12


# What becomes of incidents


def test_an_incident_during_a_job_is_stated_by_hub_and_sites_and_the_receipt_holds(tmp_path: Path) -> None:
    def watch(event: object) -> None:
        system = present()
        if isinstance(event, RoundFinished) and event.round == 0 and system is not None:
            system.notes.note(AuditKind.DRIFT, "began", TRAIN, REASON)

    with open_workspace(tmp_path / "work") as opened:
        outcome = run_job(ExampleJob().spec(tmp_path / "job"), opened, watch=watch)
        stated = {
            name: _incidents_in(opened, role, name, outcome.job_id)
            for role, name in [("hub", "hub"), *(("site", one) for one in SITES)]
        }
    assert outcome.verdict.accepted
    assert [len(one) for one in stated.values()] == [1, 1, 1, 1]
    (one,) = stated["lakeview"]
    assert (one.incident_class, one.severity) == ("behaviour-drift", "medium")
    assert one.detail.startswith(f"{TRAIN}: entry ")
    assert [told.function for told in outcome.noticed] == [TRAIN]
    log_lines = (tmp_path / "work" / "logs" / f"{outcome.job_id}.jsonl").read_text().splitlines()
    (line,) = [json.loads(one) for one in log_lines if '"incident"' in one]
    assert (line["level"], line["kind"], line["place"]) == ("warning", "behaviour-drift", TRAIN)
    # What says how long training took or how much it was given stays in the immune audit.
    assert "behaviour-drift" in outcome.report.read_text()
    assert not re.search("41\\.7|3e-05", outcome.report.read_text())
    assert not re.search("41\\.7|3e-05", repr(stated))
    assert outcome.as_json()["incidents"] == [outcome.noticed[0].incident_fields()]


def _incidents_in(workspace: Workspace, role: str, name: str, job_id: str) -> list[Incident]:
    with workspace.party(role, name).open_log() as log:
        found = [open_statement(one.envelope).predicate for one in log.extract(job_id).entries]
        return [one for one in found if isinstance(one, Incident)]


class _Blocks:
    """A sensor that lets nothing run."""

    def enter(self, entered: Entered) -> Decision | None:
        return Decision(Action.BLOCK, REASON, 99.0, "event-1")

    def leave(self, observed: Observed) -> None:
        raise AssertionError


def test_a_site_whose_round_is_blocked_leaves_by_its_own_refusal_and_says_no_more_than_that(
    tmp_path: Path,
) -> None:
    left = []

    def watch(event: object) -> None:
        system = present()
        if isinstance(event, RoundFinished) and event.round == 0 and system is not None:
            for gate in gates(TRAIN):
                gate.sensor = _Blocks()
                gate.arm()
        if isinstance(event, SiteLeft):
            left.append(event.code)

    with pytest.raises(RefusalError) as refused:
        run(ExampleJob().spec(tmp_path / "job"), tmp_path / "work", watch=watch)
    assert set(left) == {"immune.call_blocked"}
    assert refused.value.exit_code == 3
    assert "41.7" not in str(refused.value.details)


def test_a_damaged_state_is_put_aside_stated_and_stops_no_job(tmp_path: Path) -> None:
    state = tmp_path / "work" / STATE
    state.mkdir(parents=True, mode=0o700)
    (state / "immune.db").write_bytes(b"no database at all " * 500)
    outcome = run(ExampleJob().spec(tmp_path / "job"), tmp_path / "work")
    assert outcome.verdict.accepted
    assert [one.incident_class for one in outcome.noticed] == ["immune-fault"]
    assert len(list(state.glob("immune.db.*"))) >= 1
    # It was noticed before any party had stated anything.
    with open_workspace(tmp_path / "work") as opened:
        for role, name in [("hub", "hub"), *(("site", one) for one in SITES)]:
            (stated,) = _incidents_in(opened, role, name, outcome.job_id)
            assert stated.incident_class == "immune-fault"


def test_only_parties_that_have_begun_state_an_incident_in_a_job(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    job = str(uuid4())
    begun, silent, keeper = seat(job), seat(job), seat(None)
    begun.writer.write(Incident, [SUBJECT], **incident().incident_fields())
    with immunity(SETTINGS, tmp_path) as noticing:
        with noticing.stated_by([begun.writer, silent.writer, keeper.writer]):
            noticing.take(incident())
        noticing.take(incident("cloister.other:late"))
        with noticing.stated_by([keeper.writer]):
            pass
    assert [len(one.incidents()) for one in (begun, silent, keeper)] == [2, 0, 2]
    assert len(noticing.noticed) == 2


def test_what_was_noticed_before_a_party_began_is_stated_soon_after_it_has(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    party = seat(str(uuid4()))
    with immunity(SETTINGS, tmp_path) as noticing, noticing.stated_by([party.writer]) as stated:
        for number in range(3):
            noticing.take(incident(f"cloister.other:f{number}"))
        time.sleep(0.2)
        assert party.incidents() == []
        party.writer.write(Violation, [SUBJECT], rule="a.rule", detail="anything", artifact_sha256=None)
        deadline = time.monotonic() + 30
        while len(party.incidents()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        found = [one.detail.partition(":")[2].partition(":")[0] for one in party.incidents()]
        assert found == ["f0", "f1", "f2"]
        stated.close()
    assert len(party.incidents()) == 3


def test_what_was_noticed_before_a_party_began_is_stated_before_its_chain_is_closed(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    party = seat(str(uuid4()))
    with immunity(SETTINGS, tmp_path) as noticing, noticing.stated_by([party.writer]) as stated:
        noticing.take(incident())
        party.writer.write(Violation, [SUBJECT], rule="a.rule", detail="anything", artifact_sha256=None)
        stated.close()
        assert len(party.incidents()) == 1


class _BlockedSigner:
    """A signer whose calls are stopped, as a token's may be, until it is let go."""

    def __init__(self, inner: Signer) -> None:
        self._inner, self.blocked, self.asked = inner, True, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def sign(self, message: bytes) -> bytes:
        self.asked += 1
        if self.blocked:
            raise CallBlocked("cloister.core.keys.pkcs11:_TokenSigner.sign", REASON, "event-1")
        return self._inner.sign(message)


def test_a_blocked_signature_keeps_no_other_party_from_stating_and_is_asked_for_again(
    seat: Callable[[str | None], Seat], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stopped, keeper = seat(None), seat(None)
    signer = _BlockedSigner(stopped.writer._signer)
    stopped.writer._signer = cast("Signer", signer)
    configure_logging(path=tmp_path / "run.jsonl", level=LogLevel.INFO, experiment_id="test")
    try:
        with (
            immunity(SETTINGS, tmp_path) as noticing,
            noticing.stated_by([stopped.writer, keeper.writer]),
        ):
            for number in range(3):
                noticing.take(incident(f"cloister.other:f{number}"))
            deadline = time.monotonic() + 30
            while len(keeper.incidents()) < 3 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert stopped.incidents() == []
            signer.blocked = False
    finally:
        stop_logging()
    assert [len(one.incidents()) for one in (stopped, keeper)] == [3, 3]
    assert signer.asked == 3 + 3
    log = (tmp_path / "run.jsonl").read_text()
    codes = [json.loads(one)["code"] for one in log.splitlines() if "incident_unstated" in one]
    assert codes == ["immune.call_blocked"] * 3
    assert "41.7" not in log + "".join(capfd.readouterr())


def test_an_incident_inside_of_a_call_that_holds_the_writers_lock_waits_its_turn(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    keeper = seat(None)
    with immunity(SETTINGS, tmp_path) as noticing, noticing.stated_by([keeper.writer]) as stated:
        with keeper.writer._lock:
            noticing.take(incident())
        stated.close()
    assert len(keeper.incidents()) == 1


def test_a_log_that_takes_nothing_more_keeps_the_others_from_nothing(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    job = str(uuid4())
    closed, keeper = seat(job), seat(None)
    closed.writer.write(Incident, [SUBJECT], **incident().incident_fields())
    closed.writer.close("completed")
    with immunity(SETTINGS, tmp_path) as noticing, noticing.stated_by([closed.writer, keeper.writer]):
        noticing.take(incident())
    assert [len(closed.incidents()), len(keeper.incidents())] == [1, 1]


# One in a process


def test_jobs_of_one_workspace_that_overlap_share_one_and_each_is_told(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tmp_path)
    with immunity(SETTINGS, tmp_path) as first:
        with immunity(SETTINGS, tmp_path / "here") as second:
            _notice_a_drift()
        _notice_a_drift("cloister.other:late")
    assert present() is None
    assert [len(first.noticed), len(second.noticed)] == [2, 1]


def test_a_job_states_nothing_that_the_audit_of_another_workspace_has(
    seat: Callable[[str | None], Seat], tmp_path: Path
) -> None:
    own, others = seat(None), seat(None)
    with (
        immunity(SETTINGS, tmp_path / "one") as first,
        first.stated_by([own.writer]),
        immunity(SETTINGS, tmp_path / "two") as second,
        second.stated_by([others.writer]),
    ):
        system = present()
        assert (first.watching, second.watching) == (True, True)
        _notice_a_drift()
        with immunity(SETTINGS, tmp_path / "two"):
            assert present() is system
    assert present() is None
    assert [len(first.noticed), len(second.noticed)] == [1, 0]
    (stated,) = own.incidents()
    assert others.incidents() == []
    export_audit(AuditFolder(tmp_path / "one" / STATE / "audit"), tmp_path / "out.jsonl")
    assert stated.detail.split()[2] in {one["event_id"] for one in _lines(tmp_path / "out.jsonl")}
    assert not (tmp_path / "two").exists()


def test_what_is_noticed_after_the_first_has_ended_is_logged_where_nobody_states_it(tmp_path: Path) -> None:
    configure_logging(path=tmp_path / "run.jsonl", level=LogLevel.INFO, experiment_id="test")
    try:
        with ExitStack() as first:
            first.enter_context(immunity(SETTINGS, tmp_path / "one"))
            with immunity(SETTINGS, tmp_path / "two") as second:
                first.close()
                _notice_a_drift()
    finally:
        stop_logging()
    assert second.noticed == ()
    (line,) = [one for one in _lines(tmp_path / "run.jsonl") if one["level"] == "warning"]
    assert (line["event"], line["kind"], line["place"]) == ("incident_elsewhere", "behaviour-drift", TRAIN)


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


def _notice_a_drift(function: str = TRAIN) -> None:
    system = present()
    assert system is not None
    system.notes.note(AuditKind.DRIFT, "began", function, REASON)


def test_jobs_that_begin_and_end_in_many_threads_leave_none_on(tmp_path: Path) -> None:
    wrong = []

    def use() -> None:
        for _ in range(10):
            with immunity(SETTINGS, tmp_path) as one:
                if not one.watching or present() is None:
                    wrong.append(1)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert wrong == []
    assert present() is None


def test_an_application_that_is_protected_itself_keeps_its_own(tmp_path: Path) -> None:
    with protect(settings=ImmuneSettings()) as own:
        with immunity(SETTINGS, tmp_path) as noticing:
            assert not noticing.watching
            assert present() is own
        assert present() is own
    assert not (tmp_path / STATE).exists()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    with immunity(Settings(immune=False), tmp_path) as noticing:
        assert not noticing.watching
        assert present() is None
    assert list(tmp_path.iterdir()) == []


def test_rules_that_cannot_be_read_are_an_error_and_nothing_is_watched(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / "pic.yaml").write_text("effector: {enforced: [a]}\n")
    with pytest.raises(ImmuneError) as refused, immunity(SETTINGS, tmp_path):
        pass
    assert refused.value.code == "immune.setting_invalid"
    assert present() is None


def test_what_may_be_blocked_is_what_the_operator_named(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / "pic.yaml").write_text(f"effector: {{enforcing: ['{TRAIN}']}}\n")
    with immunity(SETTINGS, tmp_path):
        import_module("cloister.federation.site")
        system = present()
        assert system is not None
        functions = system.status()["functions"]
        assert [name for name, one in functions.items() if one["enforcing"]] == [TRAIN]  # type: ignore[union-attr,index,call-overload]


@pytest.mark.parametrize(
    "rules", ["url: 'https://collector.example/v1'", "{url: 'https://127.0.0.1:4318', protocol: otlp}"]
)
def test_rules_that_would_send_figures_away_are_refused(tmp_path: Path, rules: str) -> None:
    (tmp_path / STATE).mkdir()
    body = rules if rules.startswith("{") else f"{{{rules}}}"
    (tmp_path / STATE / "pic.yaml").write_text(f"api: {body}\n")
    with pytest.raises(ImmuneError, match=r"api\.url") as refused, immunity(SETTINGS, tmp_path):
        pass
    assert refused.value.code == "immune.setting_invalid"
    assert "pic status" in refused.value.hint
    assert present() is None


def test_the_environment_rules_nothing_but_the_kill_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIC_EFFECTOR__ENFORCING": "cloister.federation.site:*",
        "PIC_API__URL": "http://127.0.0.1:9",
        "PIC_CELLAGENT__ENABLED": "false",
        "PIC_STORAGE__DIRECTORY": str(tmp_path / "elsewhere"),
        "PIC_NO__SETTING": "1",
        "PIC_DISABLED": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with immunity(SETTINGS, tmp_path):
        system = present()
        assert system is not None
        assert system.settings.effector.enforcing == ()
        assert system.settings.api.url is None
        assert system.settings.cellagent.enabled
        assert system.switch.thrown_by is ThrownBy.ENVIRONMENT
    assert (tmp_path / STATE / "immune.db").exists()
    assert not (tmp_path / "elsewhere").exists()


def _as_file(state: Path) -> None:
    state.write_text("no folder")


def _as_dangling_link(state: Path) -> None:
    state.symlink_to(state.parent / "nowhere" / "at-all")


def _as_folder_of_others(state: Path) -> None:
    state.mkdir()
    (state / "audit").write_text("no folder")


@pytest.mark.parametrize("spoiled", [_as_file, _as_dangling_link, _as_folder_of_others])
def test_a_folder_that_cannot_be_used_stops_nothing_and_is_an_alarm(
    tmp_path: Path, spoiled: Callable[[Path], None]
) -> None:
    spoiled(tmp_path / STATE)
    configure_logging(path=tmp_path / "run.jsonl", level=LogLevel.INFO, experiment_id="test")
    try:
        with immunity(SETTINGS, tmp_path) as noticing:
            system = present()
            assert noticing.watching
            assert system is not None
            assert [one.kind for one in system.brain.alarms] == ["folder_unusable"]
    finally:
        stop_logging()
    assert present() is None
    found = [(one["level"], one["kind"]) for one in _lines(tmp_path / "run.jsonl") if one["event"] == "alarm"]
    assert found == [("warning", "folder_unusable")]


def test_a_fault_in_closing_is_not_the_jobs(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir(mode=0o700)
    (tmp_path / STATE / "processes").write_text("no folder")
    with immunity(SETTINGS, tmp_path) as noticing:
        assert noticing.watching
    assert present() is None


def test_the_command_says_what_was_blocked_without_a_traceback() -> None:
    def stopped() -> int:
        raise CallBlocked(TRAIN, REASON, "event-1")

    assert guarded(stopped, as_json=False, debug=False) == 3
