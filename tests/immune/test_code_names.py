"""What identifies a person in a name of code is neither kept nor sent; other names stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune import ImmuneSettings, monitor
from cloister.immune import protection as protecting
from cloister.immune.code_names import MOST_NAMES, learned_shown, name_shown
from cloister.immune.detection import new_detector
from cloister.immune.detection.detector import DetectorSettings
from cloister.immune.observation import Entered, Observed
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.service.encoding import encode_batch
from cloister.immune.wrapping.events import TelemetryEvent

PERSON = "maria.lopez@example.org"
ELSE = "4111 1111 1111 1111"


def made_at_run_time(person: str, paid_with: str) -> tuple[type, object]:
    """A class named by a person, and a caller named by their card, as code that is made from data is."""
    space: dict[str, object] = {"__name__": "ward"}
    exec("def visit(self, given):\n    return 1\ndef call(one, given):\n    return one.visit(given)", space)
    visit, call = space["visit"], space["call"]
    visit.__qualname__ = f"{person}.visit"  # type: ignore[attr-defined]
    call.__code__ = call.__code__.replace(co_qualname=f"{paid_with}.call")  # type: ignore[attr-defined]
    visit.__module__ = "ward"
    return type(person, (), {"visit": monitor(visit)}), call


class Collected:
    """A sender that keeps what it would send, and never sends."""

    fill = 0.0

    def __init__(self) -> None:
        self.events: list[TelemetryEvent] = []

    def offer(self, event: TelemetryEvent) -> bool:
        self.events.append(event)
        return True

    def close(self) -> None:
        """Nothing waits."""

    @property
    def counts(self) -> None:
        return None


def test_neither_database_nor_audit_nor_telemetry_nor_status_has_what_a_name_of_code_says_of_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sent = tmp_path / "state", Collected()
    folder.mkdir(mode=0o700)
    monkeypatch.setattr("cloister.immune.service.open_sender", lambda _: sent)
    given_settings = ImmuneSettings.model_validate(
        {
            "cellagent": {"sampling": "every-call", "resource_tags": {"service": "ward"}},
            "effector": {"enforcing": ["ward:*"]},
            "storage": {"directory": str(folder)},
            "api": {"url": "http://127.0.0.1:9"},
        }
    )
    kind, call = made_at_run_time(PERSON, ELSE)
    with Protection(given_settings).start() as protection:
        for number in range(230):
            call(kind(), ["a"] * (1 + number % 3))  # type: ignore[operator]
        for _ in range(40):
            call(kind(), [kind()] * 4000)  # type: ignore[operator]
        protection.brain.save()
        protection._status.write()
        assert dict(protecting.FAULTS.by_kind) == {}
        (name,) = (one for one in protection.brain.cells() if one.startswith("ward:["))
        assert name == "ward:[EMAIL_REDACTED]"
        function = protection.status()["functions"][name]  # type: ignore[index, call-overload]
        assert (function["enforcing"], function["calls"]) == (True, 270)
        shown = json.dumps(protection.status())
    with Operator(folder, "tester") as operator:
        assert operator.export(tmp_path / "audit.jsonl").accepted
        operator.approve(name)
    files = [one for one in (*folder.rglob("*"), tmp_path / "audit.jsonl") if one.is_file()]
    kept = b"".join(one.read_bytes() for one in files)
    telemetry = encode_batch(sent.events)
    assert len(sent.events) == 270
    assert all(one.resource_tags == {"service": "ward"} for one in sent.events)
    assert b"[EMAIL_REDACTED]" in telemetry
    assert b"[EMAIL_REDACTED]" in kept
    assert b"[CARD_REDACTED]" in kept + telemetry or b"CC_REDACTED" in kept + telemetry
    for secret in (PERSON, ELSE, "maria", ELSE.replace(" ", "")):
        assert secret not in shown
        assert secret.encode() not in kept
        assert secret.encode() not in telemetry


def test_each_name_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr("cloister.immune.code_names._SHOWN", {})
    monkeypatch.setattr("cloister.immune.code_names._CLEAN", lambda text: looked.append(text) or text)
    for _ in range(1000):
        name_shown("ward.beds:free")
    assert looked == ["ward.beds", "free"]
    for number in range(MOST_NAMES + 5):
        name_shown(f"f{number}")
    from cloister.immune import code_names

    assert len(code_names._SHOWN) <= MOST_NAMES


@settings(max_examples=200)
@given(
    st.from_regex(
        r"[a-z_]{1,12}(\.[a-z_]{1,12}){0,3}:[A-Za-z_]{1,12}(\.(<locals>|[A-Za-z_]{1,12})){0,3}",
        fullmatch=True,
    )
)
def test_ordinary_names_of_code_stay_as_they_are(name: str) -> None:
    assert name_shown(name) == name


@pytest.mark.parametrize(
    "name",
    ["accounts.password:check", "auth.token:get", "ward.ssn:validate", "a.mrn:find_patient", ":main", ""],
)
def test_a_name_that_speaks_of_a_secret_is_none(name: str) -> None:
    assert name_shown(name) == name


def test_what_was_learned_is_the_same_bytes_where_no_name_says_anything() -> None:
    from cloister.core.canonical import canonicalize

    detector = new_detector("tail", DetectorSettings())
    for caller in ("ward:a", "ward:b"):
        detector.learn(Observed(Entered(1.0, 1, caller, 1, 0, True), 0.001, False))
    plain = canonicalize(detector.as_json())
    assert learned_shown(plain) is plain
    detector.learn(Observed(Entered(2.0, 1, f"ward:{PERSON}", 1, 0, True), 0.001, False))
    shown = learned_shown(canonicalize(detector.as_json()))
    assert PERSON.encode() not in shown
    assert b"ward:[EMAIL_REDACTED]" in shown


def test_what_failed_inside_is_told_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)

    @monitor(name="ward:admit")
    def admit(number: int) -> int:
        return number

    def fail(*_: object) -> None:
        raise LookupError(PERSON)

    given_settings = ImmuneSettings.model_validate(
        {"cellagent": {"sampling": "every-call"}, "storage": {"directory": str(folder)}}
    )
    with Protection(given_settings).start() as protection:
        before = protecting.FAULTS.count
        monkeypatch.setattr(protection.brain.cell("ward:admit"), "leave", fail)
        assert [admit(number) for number in range(3)] == [0, 1, 2]
        status = protection.status()
    kinds = status["fault_kinds"]
    assert isinstance(kinds, dict)
    assert status["faults"] == before + 3
    assert kinds["leave: LookupError"] >= 3  # type: ignore[operator]
    assert status["upkeep_failures"] == 0
    assert PERSON not in json.dumps(status)
