"""The engine: NVFlare's own runners in one process, with arithmetic in place of training."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from nvflare.apis.utils.reliable_message import ReliableMessage
from nvflare.fuel.utils.config_service import ConfigService

from cloister.core.errors import StorageError
from cloister.enclave.tensors import tensors_sha256
from cloister.federation import (
    AdmissionError,
    FederationError,
    FederationJob,
    FederationResult,
    JobError,
    LocalBackend,
    RefusalError,
    RoundFinished,
    RoundStarted,
    SiteAdmitted,
    SiteLeft,
    SiteRefused,
    SiteRoundFinished,
    compile_job,
)
from cloister.federation.backends import local
from cloister.federation.events import FederationEvent
from cloister.federation.node import Abort, AggregatedRound, Challenge, RoundTask, SiteFailure
from cloister.privacy.errors import BudgetExceeded
from tests.federation.nodes import ArithmeticHub, ArithmeticSite, a_job, sites_for, slow


def run(
    directory: Path,
    job: FederationJob,
    sites: Mapping[str, ArithmeticSite] | None = None,
    hub: ArithmeticHub | None = None,
    **others: Callable[..., object],
) -> FederationResult:
    return LocalBackend(directory).run(
        job, compile_job(job), hub or ArithmeticHub(job), sites or sites_for(job), **others
    )  # type: ignore[arg-type]


def misbehaving(job: FederationJob, site: str, act: Callable[[RoundTask, Abort], object]) -> ArithmeticSite:
    return ArithmeticSite(job, site, before_round=act)  # type: ignore[arg-type]


def raising(error: BaseException, *, from_round: int = 0) -> Callable[[RoundTask, Abort], None]:
    def act(task: RoundTask, abort: Abort) -> None:
        if task.round >= from_round:
            raise error

    return act


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> object:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


def test_every_site_trains_every_round_and_the_hub_averages_by_records(tmp_path: Path) -> None:
    job = a_job(rounds=3)
    sites = sites_for(job)
    result = run(tmp_path, job, sites)
    assert [site.rounds for site in sites.values()] == [[0, 1, 2]] * 3
    assert [(record.round, record.sites) for record in result.rounds] == [
        (number, ("north", "south", "west")) for number in range(3)
    ]
    expected = 3 * 0.1 * (1.0 * 100 - 0.7 * 50 + 2.3 * 25) / 175
    np.testing.assert_allclose(result.weights["layer.bias"], expected, rtol=1e-5)
    assert result.failures == ()


def test_attestation_comes_before_training_and_training_before_aggregation(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    hub = ArithmeticHub(job)
    run(tmp_path, job, hub=hub)
    assert hub.trace == [
        *(f"challenge {site}" for site in job.clients),
        "round 0 north,south,west",
        "aggregated 0 north,south,west",
        "round 1 north,south,west",
        "aggregated 1 north,south,west",
    ]


def test_each_site_receives_exactly_the_hubs_weights(tmp_path: Path) -> None:
    job = a_job(rounds=4)
    sites = sites_for(job)
    hub = ArithmeticHub(job)
    sent = [tensors_sha256(hub.weights)]
    hub_aggregated = hub.aggregated

    def remember(result: AggregatedRound) -> Mapping[str, float]:
        sent.append(tensors_sha256(result.after))
        return hub_aggregated(result)

    hub.aggregated = remember  # type: ignore[method-assign]
    run(tmp_path, job, sites, hub)
    for site in sites.values():
        assert site.received == sent[:-1]


def test_equal_jobs_end_in_equal_bytes_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    job = a_job(rounds=4)
    hashes = set()
    for delays in ({}, {"north": 0.01}, {"south": 0.02, "west": 0.01}):
        sites = {
            name: ArithmeticSite(job, name, step, before_round=slow(delays.get(name, 0.0)))
            for name, step in {"north": 1e30, "south": -2e30, "west": 1.0}.items()
        }
        hashes.add(tensors_sha256(run(tmp_path, job, sites).weights))
    assert len(hashes) == 1


def test_a_watcher_sees_each_step_once_and_never_two_at_a_time(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    seen: list[FederationEvent] = []
    inside = threading.Lock()

    def watch(event: FederationEvent) -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        seen.append(event)
        inside.release()

    run(tmp_path, job, on_event=watch)
    assert seen[:3] == [SiteAdmitted(site) for site in job.clients]
    assert seen[3] == RoundStarted(0, 2, job.clients)
    assert sorted(seen[4:7], key=lambda event: event.site) == [  # type: ignore[union-attr]
        SiteRoundFinished(site, 0, 0.25) for site in job.clients
    ]
    assert isinstance(seen[7], RoundFinished)
    assert seen[7].metrics.keys() == {"mean"}
    assert len(seen) == 3 + 2 * 5


def test_a_site_with_another_measurement_gets_no_task(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    other = ArithmeticSite(job, "south", measurement=b"other-code")
    seen: list[FederationEvent] = []
    result = run(tmp_path, job, sites_for(job, south=other), on_event=seen.append)
    assert other.rounds == []
    assert SiteRefused("south", "measurement") in seen
    assert [record.sites for record in result.rounds] == [("north", "west")] * 2


def test_a_job_with_too_few_admitted_sites_does_not_start(tmp_path: Path) -> None:
    job = a_job(min_clients=3)
    sites = sites_for(job, south=ArithmeticSite(job, "south", measurement=b"other-code"))
    with pytest.raises(AdmissionError) as refusal:
        run(tmp_path, job, sites)
    assert refusal.value.code == "federation.too_few_sites"
    assert refusal.value.details == ("south: refused, measurement",)
    assert all(site.rounds == [] for site in sites.values())


def test_absent_sites_count_as_refused(tmp_path: Path) -> None:
    job = a_job(rounds=1)
    sites = sites_for(job)
    del sites["west"]
    assert run(tmp_path, job, sites).rounds[0].sites == ("north", "south")
    del sites["south"]
    with pytest.raises(AdmissionError):
        run(tmp_path, job, sites)


def test_a_site_that_the_job_does_not_name_is_refused(tmp_path: Path) -> None:
    job = a_job()
    stranger = ArithmeticSite(job, "east")
    with pytest.raises(JobError) as refusal:
        run(tmp_path, job, {**sites_for(job), "east": stranger})
    assert refusal.value.code == "federation.unknown_site"


def test_a_directory_that_cannot_be_written_is_an_error_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        run(tmp_path / "absent", a_job())


def test_a_site_that_cannot_answer_a_challenge_is_refused(tmp_path: Path) -> None:
    job = a_job(rounds=1)
    south = ArithmeticSite(job, "south")

    def broken(challenge: Challenge) -> bytes:
        raise OSError("the device is gone")

    south.quote = broken  # type: ignore[method-assign]
    assert run(tmp_path, job, sites_for(job, south=south)).rounds[0].sites == ("north", "west")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (raising(ValueError("row 17: patient Smith")), "federation.site_failed"),
        (raising(RuntimeError("row 17: patient Smith")), "federation.site_failed"),
        (raising(SystemExit(3)), "federation.site_failed"),
        (raising(BudgetExceeded("ledger.budget_exceeded", "no budget")), "ledger.budget_exceeded"),
        (raising(FederationError("federation.bad_task", "no")), "federation.bad_task"),
        (lambda task, abort: {"layer.weight": "a text"}, "federation.update_refused"),
        (lambda task, abort: {**task.weights, "rows": np.zeros(9)}, "federation.update_refused"),
        (lambda task, abort: {"layer.bias": task.weights["layer.bias"]}, "federation.bad_update"),
        (
            lambda task, abort: {name: np.full_like(value, np.nan) for name, value in task.weights.items()},
            "federation.bad_update",
        ),
        (
            lambda task, abort: {name: np.zeros((4, 4), np.float32) for name in task.weights},
            "federation.bad_update",
        ),
        (lambda task, abort: 5, "federation.update_refused"),
    ],
)
def test_a_site_that_fails_is_out_and_the_others_go_on(
    tmp_path: Path, act: Callable[[RoundTask, Abort], object], code: str
) -> None:
    job = a_job(rounds=3)
    south = misbehaving(job, "south", act)
    seen: list[FederationEvent] = []
    hub = ArithmeticHub(job)
    result = run(tmp_path, job, sites_for(job, south=south), hub, on_event=seen.append)
    assert [record.sites for record in result.rounds] == [("north", "west")] * 3
    assert result.failures == (SiteFailure("south", 0, code),)
    assert hub.failures == list(result.failures)
    assert SiteLeft("south", 0, code) in seen
    assert south.rounds == [0]
    assert "Smith" not in repr((result, seen, hub.failures))


def test_a_site_may_leave_in_a_later_round(tmp_path: Path) -> None:
    job = a_job(rounds=4)
    act = raising(BudgetExceeded("ledger.budget_exceeded", "no budget"), from_round=2)
    result = run(tmp_path, job, sites_for(job, west=misbehaving(job, "west", act)))
    everyone, two = ("north", "south", "west"), ("north", "south")
    assert [record.sites for record in result.rounds] == [everyone, everyone, two, two]


def test_a_job_ends_with_a_refusal_when_budgets_leave_too_few_sites(tmp_path: Path) -> None:
    job = a_job(min_clients=3)
    act = raising(BudgetExceeded("ledger.budget_exceeded", "the budget is spent"), from_round=1)
    with pytest.raises(RefusalError) as refusal:
        run(tmp_path, job, sites_for(job, south=misbehaving(job, "south", act)))
    assert refusal.value.exit_code == 3
    assert refusal.value.details == ("south: left in round 2, ledger.budget_exceeded the budget is spent",)


def test_a_job_fails_at_once_when_the_quorum_is_lost(tmp_path: Path) -> None:
    job = a_job(min_clients=3, round_timeout_seconds=60)
    sites = sites_for(
        job,
        south=misbehaving(job, "south", raising(ValueError("broken"))),
        west=misbehaving(job, "west", slow(30)),
    )
    hub = ArithmeticHub(job)
    started = time.monotonic()
    with pytest.raises(FederationError) as loss:
        run(tmp_path, job, sites, hub)
    assert time.monotonic() - started < 5
    assert loss.value.code == "federation.quorum_lost"
    assert hub.trace[-1] == "failed federation.quorum_lost"
    assert loss.value.details == ("south: left in round 1, federation.site_failed ValueError",)


def test_a_site_that_is_late_is_out_and_told_to_stop_while_the_others_go_on(tmp_path: Path) -> None:
    job = a_job(rounds=4, round_timeout_seconds=1)
    finished: list[float] = []
    stopped: list[int] = []

    def until_told(task: RoundTask, abort: Abort) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end and not abort():
            time.sleep(0.005)
        stopped.append(len(finished))

    def watch(event: FederationEvent) -> None:
        if isinstance(event, RoundFinished):
            finished.append(time.monotonic())

    sites = sites_for(
        job, north=misbehaving(job, "north", slow(0.2)), west=misbehaving(job, "west", until_told)
    )
    result = run(tmp_path, job, sites, on_event=watch)
    assert result.failures == (SiteFailure("west", 0, "federation.site_timeout"),)
    assert [record.sites for record in result.rounds] == [("north", "south")] * 4
    assert stopped in ([0], [1])


def test_a_thread_that_will_not_end_is_named(tmp_path: Path) -> None:
    job = a_job(rounds=1, round_timeout_seconds=1)
    release = threading.Event()

    def deaf(task: RoundTask, abort: Abort) -> None:
        release.wait(20)

    backend = LocalBackend(tmp_path, stop_seconds=0.2)
    sites = sites_for(job, west=misbehaving(job, "west", deaf))
    with pytest.raises(FederationError) as stuck:
        backend.run(job, compile_job(job), ArithmeticHub(job), sites)
    assert stuck.value.code == "federation.site_stuck"
    assert stuck.value.details[-1] == "site-west: its thread did not end"
    release.set()
    for thread in threading.enumerate():
        if thread.name == "site-west":
            thread.join(5)


def test_an_abort_stops_the_job_between_two_batches(tmp_path: Path) -> None:
    job = a_job(rounds=1000)
    sites = {name: misbehaving(job, name, slow(30)) for name in job.clients}
    began = time.monotonic()
    with pytest.raises(FederationError) as stop:
        run(tmp_path, job, sites, abort=lambda: time.monotonic() > began + 0.3)
    assert stop.value.code == "federation.aborted"
    assert time.monotonic() - began < 3


def test_an_interrupt_ends_every_thread_and_goes_on_up(tmp_path: Path) -> None:
    job = a_job(rounds=1000)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, job, {name: misbehaving(job, name, slow(30)) for name in job.clients}, abort=interrupt)


@pytest.mark.parametrize("method", ["initial_weights", "challenge", "admit", "site_weight", "aggregated"])
def test_an_error_of_the_hub_ends_the_job_and_comes_back_as_it_is(tmp_path: Path, method: str) -> None:
    job = a_job()
    hub = ArithmeticHub(job)

    def full(*arguments: object) -> object:
        raise StorageError("storage.no_space", "the disk is full")

    setattr(hub, method, full)
    with pytest.raises(StorageError):
        run(tmp_path, job, hub=hub)


def test_an_error_in_a_callback_of_the_hub_is_not_swallowed(tmp_path: Path) -> None:
    job = a_job()
    hub = ArithmeticHub(job)

    def full(failure: SiteFailure) -> None:
        raise StorageError("storage.no_space", "the disk is full")

    hub.site_failed = full  # type: ignore[method-assign]
    sites = sites_for(job, south=misbehaving(job, "south", raising(ValueError("broken"))))
    with pytest.raises(StorageError):
        run(tmp_path, job, sites, hub)


def test_a_watcher_that_raises_ends_the_job_with_its_error(tmp_path: Path) -> None:
    job = a_job(rounds=1000)

    def watch(event: FederationEvent) -> None:
        raise LookupError("the screen is gone")

    with pytest.raises(LookupError):
        run(tmp_path, job, on_event=watch)


def test_a_job_whose_weights_never_move_is_not_complete(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    idle = {name: ArithmeticSite(job, name, 0.0) for name in job.clients}
    with pytest.raises(FederationError) as doubt:
        run(tmp_path, job, idle)
    assert doubt.value.code == "federation.incomplete"


def credulous(sites: dict[str, ArithmeticSite]) -> dict[str, ArithmeticSite]:
    """Sites that take any folder, so that what stands behind that check is seen."""
    for site in sites.values():
        site.accept_folder = lambda folder: None  # type: ignore[method-assign]
    return sites


def test_a_folder_of_another_job_is_refused_by_every_site(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    with pytest.raises(FederationError) as refusal:
        LocalBackend(tmp_path).run(
            job, compile_job(a_job(rounds=2, seed=5)), ArithmeticHub(job), sites_for(job)
        )
    assert refusal.value.code == "federation.too_few_sites"
    assert all("another folder" in line for line in refusal.value.details)


def test_a_folder_of_another_job_fits_no_executor_either(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    with pytest.raises(FederationError) as refusal:
        LocalBackend(tmp_path).run(
            job, compile_job(a_job(rounds=2, seed=5)), ArithmeticHub(job), credulous(sites_for(job))
        )
    assert refusal.value.code == "federation.quorum_lost"
    assert all("federation.bad_task" in line for line in refusal.value.details)


def test_a_folder_without_an_airlock_still_meets_the_sites_own(tmp_path: Path) -> None:
    job = a_job(rounds=1)
    folder = compile_job(job)
    client = "app/config/config_fed_client.json"
    open_door = folder.files[client].replace(b'"tasks":["train"]}]}', b'"tasks":["evaluate"]}]}')
    assert open_door != folder.files[client]
    smuggler = misbehaving(job, "south", lambda task, abort: {**task.weights, "rows": "a text"})
    result = LocalBackend(tmp_path).run(
        job,
        type(folder)({**folder.files, client: open_door}),
        ArithmeticHub(job),
        credulous(sites_for(job, south=smuggler)),
    )
    assert result.failures == (SiteFailure("south", 0, "federation.update_refused"),)


def opened_files() -> set[tuple[str, str]]:
    """Every descriptor of this process and what it is of."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists the folder
            found.add((one.name, str(one.readlink())))
    return found


def test_jobs_in_a_row_leave_no_threads_no_files_and_no_parties_behind(tmp_path: Path) -> None:
    job = a_job(rounds=2)
    run(tmp_path, job)
    gc.collect()  # what earlier tests left to the collector is not this test's
    threads, files = threading.active_count(), opened_files()
    parties: list[weakref.ref[object]] = []
    for _ in range(20):
        hub, sites = ArithmeticHub(job), sites_for(job)
        parties += [weakref.ref(one) for one in (hub, *sites.values())]
        run(tmp_path, job, sites, hub)
    del hub, sites
    gc.collect()
    assert threading.active_count() == threads
    assert opened_files() <= files
    assert [party for party in parties if party() is not None] == []


def test_nvflares_own_settings_stay_as_they_are(tmp_path: Path) -> None:
    def settings() -> tuple[object, ...]:
        return (
            dict(ConfigService._sections),
            list(ConfigService._config_path),
            ConfigService._cmd_args,
            dict(ConfigService._var_values),
            ReliableMessage._enabled,
            ReliableMessage._shutdown_asked,
        )

    before = settings()
    run(tmp_path, a_job(rounds=1))
    assert settings() == before


def test_two_jobs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = a_job(rounds=5), a_job(rounds=5, job_id="00000000-0000-4000-8000-000000000001")
    alone = tensors_sha256(run(tmp_path, first).weights)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda job: tensors_sha256(run(tmp_path, job).weights), [first, second]))
    assert both == [alone, alone]


def test_the_applications_logging_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    watched = [root, logging.getLogger("nvflare"), logging.getLogger("cloister.federation.flare")]
    for logger in watched:
        caplog.set_level(logging.DEBUG, logger=logger.name)
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in watched]
    job = a_job(rounds=2)
    run(tmp_path, job, sites_for(job, west=misbehaving(job, "west", raising(ValueError("patient Smith")))))
    after = [(logger.level, list(logger.handlers), logger.propagate) for logger in watched]
    assert after == before
    assert [level for level, _, _ in after] == [logging.DEBUG] * 3
    assert [record.name for record in caplog.records if record.name.startswith(("nvflare", "cloister"))] == []
    assert capfd.readouterr() == ("", "")


def test_a_waiting_site_is_woken_and_never_sleeps_through_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_IDLE_SECONDS", 60.0)
    assert len(run(tmp_path, a_job(rounds=30)).rounds) == 30
