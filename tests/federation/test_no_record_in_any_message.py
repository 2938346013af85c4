"""A record planted in whatever training, libraries and threads say: no stream, log or statement has it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.core.clock import Clock
from cloister.core.errors import CloisterError
from cloister.core.logging import LogLevel, configure_logging, stop_logging
from cloister.core.outlets import guarded_outlets
from cloister.evidence.predicates import UpdateReleased
from cloister.federation import SiteRuntime
from cloister.privacy.trainer import DPTrainer
from tests.federation.nodes import a_job
from tests.federation.parties import Federation

CANARY = "4711.1875"
JOB = a_job(
    clients=("north", "south"),
    min_clients=1,
    rounds=2,
    privacy={"noise_multiplier": 2.0, "target_epsilon": 100.0, "delta": 1e-3},
    training={"sampling_probability": 0.5, "local_steps": 1, "learning_rate": 0.5},
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log.jsonl"
    configure_logging(path=path, level=LogLevel.DEBUG, experiment_id="trial")
    with guarded_outlets():
        yield path
    stop_logging()


def broken_training(say: Callable[[], None]) -> Callable[..., None]:
    def step(*_: object) -> None:
        say()

    return step


def raise_value_error() -> None:
    raise ValueError(f"could not use the record {CANARY}")


def raise_with_causes() -> None:
    try:
        {"": 0}[CANARY]
    except KeyError as error:
        error.add_note(CANARY)
        raise RuntimeError(f"row {CANARY}") from error


def torch_says_it() -> None:
    torch.ones(2).index_select(0, torch.tensor([float(CANARY)]).long())


def ask_to_exit() -> None:
    raise SystemExit(f"patient {CANARY}")


def warn_and_log() -> None:
    warnings.warn(f"record {CANARY} is odd", stacklevel=1)
    logging.getLogger("torch").warning("record %s", CANARY)
    logging.getLogger("nvflare").error("record %s", CANARY, exc_info=ValueError(CANARY))


def die_in_a_thread() -> None:
    thread = threading.Thread(target=raise_value_error, name=CANARY)
    thread.start()
    thread.join()


FAILURES = (
    raise_value_error,
    raise_with_causes,
    torch_says_it,
    ask_to_exit,
    warn_and_log,
    die_in_a_thread,
)


@pytest.mark.parametrize("say", FAILURES)
def test_whatever_training_says_of_a_record_stays_in_the_process(
    say: Callable[[], None],
    tmp_path: Path,
    clock: Clock,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(DPTrainer, "_step", broken_training(say))
    parties = Federation(JOB, tmp_path, clock)
    error = ""
    try:
        parties.run()
    except CloisterError as failure:
        error = repr(failure.as_json())
    shown = capfd.readouterr()
    stated = [statement.encode() for name in ("hub", *JOB.clients) for statement in parties.statements(name)]
    everything = "".join([shown.out, shown.err, log.read_text(), error])
    everything += b"".join(stated).decode()
    parties.close()
    assert stated
    assert CANARY not in everything
    assert "index 4711" not in everything
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path.name


def test_a_refusal_at_the_airlock_quotes_no_record(
    tmp_path: Path, clock: Clock, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SiteRuntime.train_round

    def smuggling(site: SiteRuntime, *words: object) -> object:
        raw = dict(honest(site, *words))  # type: ignore[arg-type]
        return raw | {CANARY: [CANARY], "metrics": {f"patient {CANARY}": np.float64(CANARY)}}

    monkeypatch.setattr(SiteRuntime, "train_round", smuggling)
    parties = Federation(JOB, tmp_path, clock)
    with pytest.raises(CloisterError) as caught:
        parties.run()
    stated = [one for name in ("hub", *JOB.clients) for one in parties.statements(name)]
    assert CANARY not in repr(caught.value.as_json()) + log.read_text()
    assert all(CANARY.encode() not in one.encode() for one in stated)
    assert not [one for one in stated if isinstance(one.predicate, UpdateReleased)]
    parties.close()
