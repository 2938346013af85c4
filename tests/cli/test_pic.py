"""``pic``: the brain service as a process, the demo, and wrong words."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from cloister.immune import ImmuneSettings, monitor, protect

PIC = [sys.executable, "-m", "cloister.cli.pic"]
LATE = 60.0


def pic(*words: object, folder: Path, seconds: float = LATE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PIC, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False, timeout=seconds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def processor_seconds_of_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


@contextmanager
def service(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*PIC, "start", "--directory", "state", "--port", "0", "--json", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["listening"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def asked(url: str, path: str) -> dict[str, object]:
    with urlopen(f"{url}/{path}", timeout=LATE) as answer:
        found = json.loads(answer.read())
    assert isinstance(found, dict)
    return found


@monitor(name="tests.ward:dose")
def dose(amount: int) -> int:
    return sum(range(200 * amount))


def test_a_brain_service_learns_from_the_telemetry_of_another_process(tmp_path: Path) -> None:
    with service(tmp_path) as (_, url):
        assert asked(url, "health") == {"status": "alive"}
        settings = ImmuneSettings.model_validate(
            {
                "api": {"url": url},
                "cellagent": {"sampling": "every-call", "batch_interval_sec": 0.2},
                "egress": {"enabled": False},
            }
        )
        with protect(settings=settings):
            for amount in range(300):
                dose(amount % 5)
        until = time.monotonic() + LATE
        learned = 0
        while learned < 300 and time.monotonic() < until:
            brain = asked(url, "status")["brain"]
            assert isinstance(brain, dict)
            learned = brain["functions"].get("tests.ward:dose", {}).get("learned", 0)
            time.sleep(0.1)
        told = json.loads(pic("status", "--url", url, "--json", folder=tmp_path).stdout)
        assert set(told) == {"service", "brain"}
        shown = pic("status", "--url", url, folder=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert "300 events taken" in shown.stdout
        assert "tests.ward:dose" in shown.stdout
        (tmp_path / "pic.yaml").write_text(f"api: {{url: '{url}'}}\n")
        assert json.loads(pic("status", "--json", folder=tmp_path).stdout)["brain"]["events_taken"] == 300
    assert learned == 300
    assert oct((tmp_path / "state").stat().st_mode)[-3:] == "700"


def test_a_service_needs_a_folder(tmp_path: Path) -> None:
    done = pic("start", "--json", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "immune.setting_invalid")


@pytest.mark.timeout(300)
def test_the_demo_learns_is_attacked_blocks_explains_and_proves_it_in_half_a_minute_of_a_processor(
    tmp_path: Path,
) -> None:
    before = processor_seconds_of_children()
    done = pic("demo", "--json", folder=tmp_path, seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["blocked"] is True
    assert said["audit_accepted"] is True
    assert [one["step"] for one in said["steps"]] == [
        *("learn", "first attack", "promote", "recover", "second attack", "recover", "explain", "audit"),
    ]
    first, second = (one for one in said["steps"] if one["step"].endswith("attack"))
    assert first["blocked"] == 0
    assert second["blocked"] > second["requests"] / 2
    assert second["records_read"] < first["records_read"] / 2
    (entry,) = (one["entry"] for one in said["steps"] if one["step"] == "explain")
    assert (entry["action"], entry["function"]) == ("block", "demo:read_records")
    assert "size" in entry["reason"]
    assert processor_seconds_of_children() - before < 30


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status"], "immune.state_unusable"),
        (["status", "--directory", "nowhere"], "immune.state_unusable"),
        (["detectors", "promote", "7", "--directory", "."], "immune.detector_unknown"),
        (["detectors", "retry", "7", "--directory", "."], "immune.detector_unknown"),
        (["approve", "a:b", "--ahead", "--calls", "0", "--directory", "."], "immune.setting_invalid"),
        (["status", "--url", "http://127.0.0.1:9"], "immune.unreachable"),
        (["approve", "a:b", "--ahead", "--target", "10.1.2.3", "--directory", "."], "immune.setting_invalid"),
        (
            ["approve", "a:b", "--ahead", "--target", "0123456789abcdef", "--directory", "."],
            "immune.target_unknown",
        ),
        (["approve", "a:b", "--directory", "."], "immune.function_unknown"),
        (["approve", "a:b", "--target", "connect 10.1.2.3", "--directory", "."], "immune.function_unknown"),
        (["deploy", "a:b", "--directory", "."], "immune.function_unknown"),
        (["approve", "a.b", "--directory", "."], "immune.setting_invalid"),
        (["detectors", "rollback", "a:b", "1", "--directory", "."], "immune.detector_unknown"),
        (["watchdog", "reset", "--directory", "."], "immune.state_unusable"),
        (["status", "--directory", "shared"], "immune.state_unusable"),
        (["status", "--config", "wrong.yaml"], "immune.setting_invalid"),
        (["status", "--config", "broken.yaml"], "immune.setting_invalid"),
        (["launch"], "usage.wrong"),
    ],
)
def test_a_wrong_word_has_a_code_and_no_traceback(tmp_path: Path, words: list[str], code: str) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "wrong.yaml").write_text("cellagent: {samplingrate: 1}\n")
    (tmp_path / "broken.yaml").write_text("cellagent: [\n")
    done = pic(*words, "--json", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, code), done.stdout
    assert done.stderr == ""


def test_what_an_operator_does_is_shown_and_recorded(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert "anchor-approved: a:b" in pic("approve", "a:b", "--ahead", "-d", ".", folder=tmp_path).stdout
    done = pic("approve", "a:b", "--target", "connect 10.1.2.3", "--directory", ".", folder=tmp_path)
    assert "egress-approved: a:b: connect of a target is approved" in done.stdout
    done = pic("approve", "a:b", "--target", "write /srv/x/", "--json", "-d", ".", folder=tmp_path)
    assert json.loads(done.stdout)["happened"] == "egress-approved"
    assert "deployed: a:b" in pic("deploy", "a:b", "--directory", ".", folder=tmp_path).stdout
    assert "Off" in pic("off", "--directory", ".", folder=tmp_path).stdout
    assert json.loads(pic("status", "--json", "-d", ".", folder=tmp_path).stdout)["kill_switch"] == "file"
    assert "On" in pic("on", "--directory", ".", folder=tmp_path).stdout
    done = pic("logs", "export", "out.jsonl", "--directory", ".", folder=tmp_path)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "accepted"), done.stdout
    kinds = [json.loads(line)["event_type"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "10.1.2.3" not in (tmp_path / "out.jsonl").read_text()
    assert kinds == ["approve", "approve", "approve", "deploy", "kill-switch", "kill-switch"]


def test_a_release_is_signed_checked_and_pinned_by_commands(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("a = 1\n")
    sign = ("code", "sign", "--keys", "keys", "--out", "code.json", "--public-key", "release.pem")
    made = pic(*sign, "--root", "code", "--json", folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["files"] == 1
    check = ("code", "check", "code.json", "--release-key", "release.pem", "--root", "code")
    assert pic(*check, folder=tmp_path).returncode == 0
    (code / "b.py").write_text("")
    differs = pic(*check, "--json", folder=tmp_path)
    assert differs.returncode == 1
    assert json.loads(differs.stdout)["differing"] == ["b.py"]
    other = (*sign[:3], "others", "--out", "other.json", "--public-key", "other.pem", "--root", "code")
    pic(*other, folder=tmp_path)
    forged = pic("code", "check", "other.json", "--release-key", "release.pem", folder=tmp_path)
    assert forged.returncode == 2
    assert "immune.manifest_invalid" in forged.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--code-manifest", "code.json", "--watchdog"),
        ("--release-key", "release.pem", "--watchdog"),
        ("--code-manifest", "code.json", "--release-key", "release.pem"),
        ("--code-manifest", "none.json", "--release-key", "none.pem", "--watchdog"),
    ],
    ids=["no key", "no list", "no watchdog", "no files"],
)
def test_a_service_whose_release_is_named_in_part_or_missing_isnt_started(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    found = pic("start", "--directory", "state", "--port", "1", *words, folder=tmp_path)
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr


def test_a_watched_service_says_whose_word_its_code_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sign = ("code", "sign", "--keys", "keys", "--out", "code.json", "--public-key", "release.pem")
    assert pic(*sign, folder=tmp_path).returncode == 0
    words = ("--watchdog", "--code-manifest", "code.json", "--release-key", "release.pem")
    process = subprocess.Popen(
        [*PIC, "start", "--directory", "state", "--port", str(port), *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        until, brain = time.monotonic() + LATE, None
        while brain is None and time.monotonic() < until:
            with suppress(OSError):
                brain = asked(f"http://127.0.0.1:{port}", "status")["brain"]
            time.sleep(0.1)
        assert isinstance(brain, dict)
        assert (brain["code_trust"], brain["watchdog"]) == ("release-key", "watching")
        shown = json.loads(pic("status", "--json", "-d", "state", folder=tmp_path).stdout)
        assert shown["watchdog"].pop("pid") > 0
        assert shown["watchdog"] == {"mode": "watching", "reason": "", "code_trust": "release-key"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert pic("logs", "export", "out.jsonl", "-d", "state", folder=tmp_path).returncode == 0
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["action"] for one in told if one["event_type"] == "state-change"] == ["release-key"]


def test_an_operator_promotes_all_that_passed_sees_first_what_can_be_promoted_and_is_known_by_their_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.immune.keeping import DetectorRegistry, open_state, pattern_key, pattern_of
    from cloister.immune.observation import Entered, Observed, Score

    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    tmp_path.chmod(0o700)
    store = open_state(tmp_path)
    registry = DetectorRegistry(store, pattern_key(tmp_path), 90.0, str)
    ordinary = [Observed(Entered(float(number), 1, "a:b", 1, 0, True), 0.01, False) for number in range(100)]
    made = []
    for feature, passes in (("duration", True), ("errors", False), ("size", True)):
        score = Score(96.0, 1e-6, feature, 5.0)
        one, _ = registry.store_detector("shop:pay", pattern_of("shop:pay", score), 80.0, score.reason)
        scored = Score(1.0 if passes else 99.0, 0.5, feature)
        registry.validate(one.id, ordinary, lambda _, scored=scored: scored)
        made.append(one.id)
    store.close()
    listed = json.loads(pic("detectors", "list", "--json", "-d", ".", folder=tmp_path).stdout)["detectors"]
    assert [one["id"] for one in listed] == [made[2], made[0], made[1]]
    for words in (("promote", "shop:pay"), ("promote", "3", "--all-passed")):
        done = pic("detectors", *words, "--json", "-d", ".", folder=tmp_path)
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "usage.wrong")
    done = pic("detectors", "promote", "shop:pay", "--all-passed", "--json", "-d", ".", folder=tmp_path)
    assert [one["detector"] for one in json.loads(done.stdout)["promoted"]] == [made[0], made[2]]
    done = pic("detectors", "promote", "shop:pay", "--all-passed", "--json", "-d", ".", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "immune.not_eligible")
    pic("logs", "export", "out.jsonl", "-d", ".", folder=tmp_path)
    entries = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["event_type"] for one in entries] == ["promotion", "promotion"]
    account = pwd.getpwuid(os.geteuid()).pw_name
    assert all(one["reason"].endswith(f"by {account} (uid {os.geteuid()})") for one in entries)
    assert "somebody-else" not in (tmp_path / "out.jsonl").read_text()


def test_a_number_that_an_option_cannot_have_is_refused_with_what_it_may_be(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = pic("approve", "a:b", "--ahead", "--calls", "1", "--json", "-d", ".", folder=tmp_path)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "immune.setting_invalid")
    assert "--calls" in error["hint"]
