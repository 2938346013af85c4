"""A site whose rounds are trained in a sealed worker: the same site, and its end is stated."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from cloister.core.clock import Clock
from cloister.core.errors import StorageError
from cloister.core.keys import FileWrappingKey, WrappingKey
from cloister.core.settings import Settings
from cloister.enclave.attestation import Evidence, TrustStore, Verifier
from cloister.enclave.errors import LaunchError, ReleaseError, SealBroken, SealedError
from cloister.enclave.keyrelease import DataKeyBook, KeyPurpose
from cloister.enclave.keyrelease.folder import KeeperFolder
from cloister.enclave.protection import Protection
from cloister.enclave.sealed import (
    SealedHost,
    SealedTrainer,
    SealLevel,
    SealPolicy,
    asking,
    encrypt_table,
    launching,
)
from cloister.evidence.predicates import (
    BudgetSpend,
    Destruction,
    Incident,
    KeyRelease,
    Violation,
    WorkerSealed,
)
from cloister.federation import FederationError, SiteRuntime, compile_job, initial_weights
from cloister.federation.handover import HandoverWithoutKey
from cloister.federation.site_keys import KeyTerms, SiteKeeper
from cloister.federation.site_training import (
    TrainerFor,
    sealed_training,
    seeded_test_randomness,
    training_in_this_process,
)
from cloister.health import HealthError, SealedSite, SiteData
from cloister.health.data import make_site
from cloister.health.schema import Column, LabelColumn, TableSchema
from cloister.policy.manifest import AttestationTerms
from tests.core.hsm import software_token
from tests.enclave.sealed.violating_server import MOMENTS
from tests.federation import parties as parties_module
from tests.federation.nodes import a_job
from tests.federation.parties import CLASSES, DELTA, FEATURES, MEASUREMENT, Federation, table

JOB = a_job(
    rounds=3,
    training={"sampling_probability": 0.25, "local_steps": 3, "learning_rate": 1.0},
    privacy={"noise_multiplier": None, "target_epsilon": 2.0, "delta": DELTA},
)
START = initial_weights(JOB, FEATURES, CLASSES)
SEED = 5
SCHEMA = TableSchema(
    name="wards",
    columns=tuple(Column(name=f"f{i}", lower=-1, upper=1) for i in range(FEATURES)),
    label=LabelColumn(name="y", classes=("no", "yes")),
    basis="made up",
)


def proceed() -> bool:
    return False


def declared(site: str) -> SiteData:
    """The made-up table as its schema scales it."""
    made = table(site)
    return make_site(site, SCHEMA, np.asarray(made.raw, np.float64), made.labels, salt=b"")


Making = Callable[[Federation], TrainerFor]


def sealed_at(host: SealedHost, measurement: bytes = MEASUREMENT) -> Making:
    """Sealed training whose key the hospital's own keeper releases, to a machine with this measurement."""
    return lambda parties: sealed_training(
        host, SCHEMA, SealPolicy(), a_keeper(parties, measurement), test_seed=SEED
    )


def a_keeper(
    parties: Federation, measurement: bytes = MEASUREMENT, wrapping: WrappingKey | None = None
) -> SiteKeeper:
    """The keeper of north, whose manifest allows simulated machines with the usual measurement."""
    path = parties.directory / "keys.db"
    book = DataKeyBook.open(path) if path.exists() else DataKeyBook.create(path)
    terms = AttestationTerms(allow_simulated=True, allowed_measurements=(MEASUREMENT.hex(),))
    now = parties.clock()
    return SiteKeeper(
        book=book,
        wrapping=wrapping or FileWrappingKey.create(parties.directory, f"kek-{measurement[:4].hex()}"),
        owner=parties.signers["north"],
        terms=KeyTerms(terms, (now, now + timedelta(days=1)), KeyPurpose.TEST_DATA),
        verifier=Verifier(
            TrustStore.simulated(parties.vendor.root_der), parties.clock, parties.vendor.collateral
        ),
        log=parties.writers["north"],
        quote=parties.vendor.platform("north", measurement).quote,
        clock=parties.clock,
        protection=Protection.SIMULATED,
    )


@pytest.fixture(scope="module")
def host() -> Iterator[SealedHost]:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    with SealedHost.start() as started:
        try:
            started.worker("dp-training").kill()
        except SealedError as error:
            pytest.skip(f"this kernel refuses: {', '.join(error.details)}")
        yield started


@pytest.fixture
def make(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Making, str], tuple[Federation, SiteRuntime]]]:
    made: list[Federation] = []
    monkeypatch.setattr(parties_module, "table", declared)

    def build(trainer: Making, folder: str) -> tuple[Federation, SiteRuntime]:
        (tmp_path / folder).mkdir()
        parties = Federation(JOB, tmp_path / folder, clock)
        made.append(parties)
        monkeypatch.setattr(parties_module, "training_in_this_process", lambda _: trainer(parties))
        site = parties.newcomer("north")
        site.accept_folder(compile_job(JOB))
        return parties, site

    yield build
    for one in made:
        one.close()


def test_a_seeded_job_releases_the_same_updates_sealed_or_not(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    def here(_: Federation) -> TrainerFor:
        return training_in_this_process(seeded_test_randomness(SEED, "north"))

    sealed = sealed_at(host)
    released: dict[str, list[str]] = {}
    for name, trainer in (("here", here), ("sealed", sealed)):
        parties, site = make(trainer, name)
        weights, released[name] = START, []
        for number in range(JOB.rounds):
            update = site.release(number, site.train_round(parties.task(number, weights), proceed))
            released[name].append(update.sha256)
            weights = update.tensors
        site.end()
    assert released["here"] == released["sealed"]
    assert len(set(released["sealed"])) == JOB.rounds


def test_the_workers_end_is_stated_once_and_nothing_trains_after_it(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host), "one")
    site.train_round(parties.task(0, START), proceed)
    site.end()
    site.end()
    (stated,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, Destruction)]
    assert stated.what == "worker-memory"
    outcomes = {check.name: check.outcome for check in stated.checks}
    # Only root's server may look into every process.
    assert outcomes.pop("namespaces-empty") == ("passed" if os.getuid() == 0 else "not_run")
    assert set(outcomes.values()) == {"passed"}
    assert stated.method == "wiped, killed, reaped"
    (sealed,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, WorkerSealed)]
    assert sealed.enclave_key.removeprefix("sha256:") in stated.artifacts
    with pytest.raises(SealedError):
        site.train_round(parties.task(1, START), proceed)


@pytest.mark.parametrize("step", ["load", "prepare"])
def test_a_worker_that_fails_while_it_is_set_up_wipes_and_its_end_is_stated(
    host: SealedHost,
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    made: list[Federation] = []
    real = getattr(SealedTrainer, step)

    def failing(trainer: SealedTrainer, *given: object) -> None:
        real(trainer, *given)
        raise SealedError("sealed.task_failed", "It could not be prepared.")

    monkeypatch.setattr(SealedTrainer, step, failing)

    def keeping(parties: Federation) -> TrainerFor:
        made.append(parties)
        return sealed_at(host)(parties)

    with pytest.raises(SealedError):
        make(keeping, "one")
    (stated,) = [one.predicate for one in made[0].acts("north") if isinstance(one.predicate, Destruction)]
    outcomes = {check.name: check.outcome for check in stated.checks}
    assert outcomes["record-buffers-wiped"] == "passed"
    assert stated.method == "wiped, killed, reaped"
    assert len(stated.artifacts) == 3


def test_a_stopped_round_is_settled_with_the_steps_that_were_taken(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host), "one")
    answers = iter([False])
    with suppress(FederationError):  # it may be over before the stop gets there
        site.train_round(parties.task(0, START), lambda: next(answers, True))
    (spend,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, BudgetSpend)]
    assert spend.executed_steps <= spend.reserved_steps
    site.end()


def test_a_worker_that_dies_in_a_round_is_charged_the_whole_round(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host), "one")
    site._trainer._trainer.worker.kill()  # type: ignore[attr-defined]
    with pytest.raises(SealedError):
        site.train_round(parties.task(0, START), proceed)
    (spend,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, BudgetSpend)]
    assert spend.executed_steps == spend.reserved_steps == 3


def violations_of(parties: Federation) -> list[tuple[str, str]]:
    stated = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, Violation)]
    assert {one.job_id for one in stated} <= {JOB.job_id}
    return [(one.rule, one.detail) for one in stated]


def go_on_until(moment: str, site: SiteRuntime, parties: Federation) -> None:
    if moment == "close":
        return
    site.train_round(parties.task(0, START), proceed)
    until = time.monotonic() + 5
    while not violations_of(parties) and time.monotonic() < until:
        time.sleep(0.01)


def test_a_violation_is_stated_once_by_its_site_for_its_job_whenever_it_happens(
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    monkeypatch.setattr(launching, "_SERVER", "tests.enclave.sealed.violating_server")
    made: list[Federation] = []

    def noted(host: SealedHost) -> Making:
        def trainer(parties: Federation) -> TrainerFor:
            made.append(parties)
            return sealed_at(host)(parties)

        return trainer

    with SealedHost.start() as host:
        for moment in MOMENTS:
            if moment in ("begin", "ask", "table", "plan"):
                with pytest.raises(SealBroken):
                    make(noted(host), moment)
            else:
                parties, site = make(noted(host), moment)
                with suppress(SealBroken):
                    go_on_until(moment, site, parties)
                site.end()
                site.end()
            ((rule, detail),) = violations_of(made[-1])
            assert (rule, "socket(inet)" in detail) == ("sealed.violation", True), moment


def test_an_end_that_could_not_be_stated_is_stated_by_the_next(
    host: SealedHost,
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parties, site = make(sealed_at(host), "one")
    writer = parties.writers["north"]
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise StorageError("storage.no_space", "The disk is full.")

        patch.setattr(writer, "write", full)
        with pytest.raises(StorageError):
            site.end()
    assert not [one for one in parties.acts("north") if isinstance(one.predicate, Destruction)]
    site.end()
    site.end()
    assert len([one for one in parties.acts("north") if isinstance(one.predicate, Destruction)]) == 1


def test_the_hospitals_keeper_states_the_release_before_the_worker_has_the_key(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host), "one")
    site.train_round(parties.task(0, START), proceed)
    site.end()
    kinds = [type(one.predicate) for one in parties.acts("north")]
    assert kinds.index(KeyRelease) < kinds.index(BudgetSpend)
    (stated,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, KeyRelease)]
    assert (stated.outcome, stated.scope, stated.number, stated.limit) == ("released", JOB.job_id, 1, 1)
    assert stated.dataset == f"table/north/{declared('north').dataset_sha256}"


def test_a_machine_that_its_own_hospital_refuses_trains_nothing_and_costs_nothing(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host, b"\xab" * 48), "one")
    with pytest.raises(ReleaseError) as refused:
        site.train_round(parties.task(0, START), proceed)
    assert refused.value.code == "release.refused"
    site.end()
    stated = [one.predicate for one in parties.acts("north")]
    assert not [one for one in stated if isinstance(one, BudgetSpend)]
    (judged,) = [one for one in stated if isinstance(one, KeyRelease)]
    assert (judged.outcome, judged.code) == ("refused", "attestation.measurement")
    (ended,) = [one for one in stated if isinstance(one, Destruction)]
    assert ended.method == "killed, reaped"
    (sealed,) = [one for one in stated if isinstance(one, WorkerSealed)]
    assert ended.artifacts == (sealed.enclave_key.removeprefix("sha256:"),)


def test_an_insecure_run_trains_the_same_behind_a_seal_and_obtains_no_key(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    def keyless(parties: Federation) -> TrainerFor:
        handover = HandoverWithoutKey(parties.writers["north"], parties.clock)
        return sealed_training(host, SCHEMA, SealPolicy(), handover, test_seed=SEED)

    released = []
    for name, trainer in (("keyed", sealed_at(host)), ("keyless", keyless)):
        parties, site = make(trainer, name)
        released.append(site.release(0, site.train_round(parties.task(0, START), proceed)).sha256)
        site.end()
    assert released[0] == released[1]
    stated = [one.predicate for one in parties.acts("north")]
    kinds = [type(one) for one in stated]
    assert KeyRelease not in kinds
    assert kinds.index(WorkerSealed) < kinds.index(Incident) < kinds.index(BudgetSpend)
    (told,) = [one for one in stated if isinstance(one, Incident)]
    assert (told.incident_class, told.detail[:8]) == ("records-without-key", "INSECURE")
    assert list(parties.directory.rglob("keys.db")) == []


def test_without_a_key_or_in_the_nodes_process_a_sealed_table_is_refused_by_name(
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "dk-" + "0" * 32
    site = SealedSite(encrypt_table(declared("north"), SCHEMA, bytes(32), data_key=key))

    def insecure(parties: Federation) -> TrainerFor:
        handover = HandoverWithoutKey(parties.writers["north"], parties.clock)
        with pytest.raises(HealthError) as refused:
            handover.give(None, JOB.job_id, site, SCHEMA)  # type: ignore[arg-type]
        assert refused.value.code == "health.sealed"
        assert parties.acts("north") == []
        monkeypatch.setattr(parties_module, "table", lambda _: site)
        return training_in_this_process(seeded_test_randomness(SEED, "north"))

    make(insecure, "one")
    with pytest.raises(HealthError) as refused:
        make(insecure, "two")
    assert refused.value.code == "health.sealed"


def test_an_insecure_run_cannot_even_have_a_keeper(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    parties, site = make(sealed_at(host), "one")
    site.end()
    keeper = a_keeper(parties, b"\x01" * 48)
    before = keeper.book.all_keys()
    with pytest.raises(LaunchError) as refused:
        replace(keeper, protection=Protection.INSECURE)
    assert refused.value.code == "launch.keys_refused"
    assert keeper.book.all_keys() == before


def in_kms(folder: Path) -> Settings:
    """A key of a key management service in this process; nothing leaves the machine."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (cloister[kms])")
    made = boto3.client("kms", region_name="eu-central-1").create_key()
    return Settings(kms_key=made["KeyMetadata"]["Arn"])


def in_token(folder: Path) -> Settings:
    token = software_token()
    (folder / "pin").write_bytes(token.pin)
    (folder / "pin").chmod(0o600)
    return Settings(pkcs11_library=token.library, pkcs11_token=token.label, pkcs11_pin_file=folder / "pin")


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    moto = pytest.importorskip("moto", reason="moto is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield


@pytest.mark.parametrize("chosen", [in_kms, in_token])
def test_a_site_trains_on_a_key_that_is_wrapped_where_the_operators_settings_say(
    host: SealedHost,
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]],
    tmp_path: Path,
    kms: None,
    chosen: Callable[[Path], Settings],
) -> None:
    settings = chosen(tmp_path)
    keepers: list[SiteKeeper] = []

    def at(parties: Federation) -> TrainerFor:
        folder = KeeperFolder(parties.directory / "keeper", settings, owner=f"hospital/{tmp_path.name}")
        folder.book.close()
        keeper = a_keeper(parties, wrapping=folder.new_wrapping(None))
        keepers.append(replace(keeper, book=DataKeyBook.open(parties.directory / "keeper" / "keys.db")))
        return sealed_training(host, SCHEMA, SealPolicy(), keepers[0], test_seed=SEED)

    parties, site = make(at, "one")
    assert site.train_round(parties.task(0, START), proceed)
    site.end()
    (made,) = keepers[0].book.all_keys()
    assert made.wrapping_id.partition(":")[0] == chosen.__name__.removeprefix("in_")
    assert list(parties.directory.rglob("*.kek")) == []


def test_a_key_to_the_records_that_was_revoked_is_not_replaced_by_another(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]], tmp_path: Path
) -> None:
    keepers: list[SiteKeeper] = []

    def at(parties: Federation) -> TrainerFor:
        keepers.append(a_keeper(parties))
        return sealed_training(host, SCHEMA, SealPolicy(), keepers[0], test_seed=SEED)

    parties, _ = make(at, "one")
    (key,) = keepers[0].book.all_keys()
    keepers[0].book.revoke_key(key.data_key, parties.clock())
    with pytest.raises(ReleaseError) as refused:
        keepers[0]._key(key.dataset)
    assert refused.value.code == "release.revoked"
    # Nor by one that another key-encryption key would wrap.
    elsewhere = replace(keepers[0], wrapping=FileWrappingKey.create(tmp_path, "another"))
    with pytest.raises(ReleaseError) as refused:
        elsewhere._key(key.dataset)
    assert refused.value.code == "release.revoked"
    assert len(keepers[0].book.all_keys()) == 1
    made = keepers[0].book.create_key(key.dataset, key.purpose, keepers[0].wrapping, parties.clock())
    assert keepers[0]._key(key.dataset) == made
    # One that the hospital made since doesn't let a job make a third.
    with pytest.raises(ReleaseError) as refused:
        elsewhere._key(key.dataset)
    assert refused.value.code == "release.revoked"
    assert len(keepers[0].book.all_keys()) == 2


def test_a_worker_that_wants_other_bytes_quoted_is_refused_before_any_quote(
    host: SealedHost,
    make: Callable[[Making, str], tuple[Federation, SiteRuntime]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quoted: list[bytes] = []

    def at(parties: Federation) -> TrainerFor:
        keeper = a_keeper(parties)

        def quote(report_data: bytes) -> Evidence:
            quoted.append(report_data)
            return keeper.quote(report_data)

        return sealed_training(host, SCHEMA, SealPolicy(), replace(keeper, quote=quote), test_seed=SEED)

    let_ask = asking.let_ask
    monkeypatch.setattr(asking, "let_ask", lambda *asked: let_ask(*asked)[:-1] + b"\x00")
    with pytest.raises(SealedError) as refused:
        make(at, "one")
    assert refused.value.code == "sealed.protocol"
    assert quoted == []


def test_a_worker_below_the_levels_of_the_manifest_gets_no_key(
    host: SealedHost, make: Callable[[Making, str], tuple[Federation, SiteRuntime]]
) -> None:
    """The node takes what it can get; the hospital's keeper goes by its manifest."""

    def at(parties: Federation) -> TrainerFor:
        lenient = SealPolicy(accepts=(SealLevel.NO_NAMESPACES,))
        return sealed_training(host, SCHEMA, lenient, a_keeper(parties), test_seed=SEED)

    parties, site = make(at, "one")
    with pytest.raises(ReleaseError):
        site.train_round(parties.task(0, START), proceed)
    site.end()
    (judged,) = [one.predicate for one in parties.acts("north") if isinstance(one.predicate, KeyRelease)]
    assert (judged.outcome, judged.code) == ("refused", "sealed.measure_missing")
