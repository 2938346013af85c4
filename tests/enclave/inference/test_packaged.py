"""A developer's sealed model is served by an operator who can't read it: an attested worker gets its key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.core.clock import format_time, system_clock
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import ALGORITHMS, EphemeralKeyStore, FileWrappingKey, Signer
from cloister.core.sealing import wipe
from cloister.enclave import SimulatedPlatform, SimulatedVendor, TrustStore, Verifier, encode_model
from cloister.enclave.attestation import Tee
from cloister.enclave.errors import InferenceError
from cloister.enclave.inference import (
    InferenceService,
    ModelDescription,
    SocketEndpoint,
    Welcome,
    open_session,
)
from cloister.enclave.inference.card import PackageName
from cloister.enclave.inference.packaging import MODEL_FILE, seal_model, serving_scope
from cloister.enclave.keyrelease import (
    DataKeyBook,
    KeyDesk,
    KeyPurpose,
    KeyServiceListener,
    ReleasePolicy,
    ReleaseService,
    sign_release_policy,
)
from cloister.enclave.package import check_package, package_dataset, seal_package
from cloister.enclave.sealed import SealedHost, SealLevel, SealPolicy
from cloister.evidence.extract import log_origin, log_stream
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import KeyRelease, Role
from cloister.evidence.statement import open_statement
from cloister.evidence.writer import StatementWriter
from cloister.privacy.models import build_model, state_arrays
from tests.conftest import ROOT
from tests.enclave.attestation_scene import MEASUREMENT
from tests.enclave.inference.memory import occurrences
from tests.enclave.keyrelease.scene import appraisal
from tests.enclave.wire import serving

FEATURES = 64
DESCRIPTION = ModelDescription("logistic-regression", {}, FEATURES)
DATASET = package_dataset("tumour-net", "1")


@dataclass
class Developer:
    """Who has a model, seals it, and keeps its key."""

    folder: Path
    vendor: SimulatedVendor
    signer: Signer = field(default_factory=lambda: EphemeralKeyStore().generate("developer"))
    purpose: KeyPurpose = KeyPurpose.TEST_DATA

    def __post_init__(self) -> None:
        network = build_model("logistic-regression", FEATURES, 2, 0)
        draw = np.random.default_rng()  # canaries: weights that nobody else has
        self.weights = {
            name: draw.normal(size=one.shape).astype(np.float32)
            for name, one in state_arrays(network).items()
        }
        self.model = encode_model(self.weights)
        self.owner = EphemeralKeyStore().generate("owner")
        self.wrapping = FileWrappingKey.create(self.folder, "developer")
        self.book = DataKeyBook.create(self.folder / "keys.db")
        self.key = self.book.create_key(DATASET, self.purpose, self.wrapping, system_clock())
        origin = log_origin(Role.SITE, "developer")
        self.log = EvidenceLog.create(self.folder / "log", origin=origin, signer=self.owner)
        self.service = ReleaseService(
            verifier=Verifier(TrustStore.simulated(self.vendor.root_der), system_clock),
            book=self.book,
            unwrap=lambda key: self.book.unwrap(key, self.wrapping),
            owner=self.owner.public_key,
            log=StatementWriter(self.log, self.owner, "developer", log_stream(origin), system_clock),
            clock=system_clock,
        )

    def image(self, model: bytes | None = None, description: ModelDescription = DESCRIPTION) -> bytes:
        key = self.book.unwrap(self.key, self.wrapping)
        try:
            return seal_model(
                model or self.model,
                description,
                name="tumour-net",
                version="1",
                data_key=self.key.data_key,
                key=key,
                developer=self.signer,
            )
        finally:
            wipe(key)

    def allowed(self, **changes: object) -> str:
        """Admit a policy for serving the package; its id."""
        now = system_clock()
        fields: dict[str, object] = {
            "data_key": self.key.data_key,
            "dataset": DATASET,
            "scope": serving_scope(check_package(self.image(), self.signer.public_key).manifest),
            "tees": (Tee.AMD_SEV_SNP,),
            "appraisal": appraisal(),
            "not_before": format_time(now - timedelta(minutes=1)),
            "expires_at": format_time(now + timedelta(days=1)),
            "releases": 5,
        }
        policy = ReleasePolicy.model_validate({**fields, **changes})
        envelope = sign_release_policy(policy, self.owner)
        return self.book.admit(envelope, self.owner.public_key, now).sha256

    def stated(self) -> list[str | None]:
        """The codes in the log; None for a release."""
        found = [open_statement(self.log.entry(index)).predicate for index in range(self.log.size)]
        return [one.code for one in found if isinstance(one, KeyRelease)]

    def expected(self, rows: np.ndarray) -> np.ndarray:
        network = build_model("logistic-regression", FEATURES, 2, 0)
        network.load_state_dict({name: torch.from_numpy(one) for name, one in self.weights.items()})
        with torch.no_grad():
            return torch.softmax(network(torch.from_numpy(rows)), dim=1).numpy()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> SimulatedVendor:
    return SimulatedVendor.create(system_clock)


@pytest.fixture
def developer(tmp_path: Path, vendor: SimulatedVendor) -> Developer:
    return Developer(tmp_path, vendor)


@pytest.fixture(scope="module")
def forking() -> Iterator[SealedHost]:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    with SealedHost.start() as made:
        yield made


@dataclass
class Operator:
    """Who serves, on a machine of the one vendor."""

    forking: SealedHost
    platform: SimulatedPlatform

    def serve(
        self, developer: Developer, image: bytes, policy_id: str, policy: SealPolicy | None = None
    ) -> InferenceService:
        try:
            return InferenceService.start_package(
                self.forking,
                image,
                developer.signer.public_key,
                keeper=developer.service,
                policy_id=policy_id,
                quote=self.platform.quote,
                simulated=True,
                policy=policy,
            )
        except CloisterError as error:
            if error.code == "sealed.measure_missing":
                pytest.skip(f"this kernel refuses: {', '.join(error.details)}")
            raise

    def workers(self) -> int:
        server = self.forking.server_pid
        return len(Path(f"/proc/{server}/task/{server}/children").read_text().split())


@pytest.fixture
def operator(forking: SealedHost, vendor: SimulatedVendor) -> Operator:
    return Operator(forking, vendor.platform("provider", MEASUREMENT))


def verifier(vendor: SimulatedVendor) -> Verifier:
    return Verifier(TrustStore.simulated(vendor.root_der), system_clock)


def rows(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_sealed_model_answers_as_it_does_outside_and_its_card_names_package_and_developer(
    operator: Operator, tmp_path: Path, vendor: SimulatedVendor, algorithm: str
) -> None:
    developer = Developer(tmp_path, vendor, signer=EphemeralKeyStore().generate("developer", algorithm))
    image, key_id = developer.image(), developer.signer.public_key.key_id
    with operator.serve(developer, image, developer.allowed()) as service:
        found = open_session(
            service.connect(),
            verifier(vendor),
            appraisal(),
            package_sha256=sha256_hex(image),
            developer=key_id,
        )
        assert np.allclose(found.predict(rows()), developer.expected(rows()), atol=1e-6)
        assert found.card.package is not None
        assert (found.card.package.image_sha256, found.card.package.developer) == (sha256_hex(image), key_id)
        assert found.card.model_sha256 is None, "a hash of the weights could be tried against guesses"
        record = service.close()
    assert developer.stated() == [None]
    assert sha256_hex(image) in record.artifacts
    assert {one.name: one.outcome for one in record.checks}["record-buffers-wiped"] == "passed"


def test_a_client_takes_no_other_package_developer_or_model_than_it_named(
    operator: Operator, developer: Developer, vendor: SimulatedVendor
) -> None:
    with operator.serve(developer, developer.image(), developer.allowed()) as service:
        for wanted in (
            {"package_sha256": "0" * 64},
            {"developer": EphemeralKeyStore().generate("other").public_key.key_id},
            {"model_sha256": sha256_hex(developer.model)},
        ):
            with pytest.raises(InferenceError) as caught:
                open_session(service.connect(), verifier(vendor), appraisal(), **wanted)
            assert caught.value.code == "inference.other_model"


def test_the_welcome_of_another_card_is_not_what_the_machine_attests(
    operator: Operator, developer: Developer, vendor: SimulatedVendor
) -> None:
    """An operator whose card names another package, or a plain model, has no evidence for it."""
    with operator.serve(developer, developer.image(), developer.allowed()) as service:

        class Lying:
            def __init__(self, **changes: object) -> None:
                self.line, self.changes = service.connect(), changes

            def hello(self, message: bytes) -> bytes:
                told = Welcome.decode(self.line.hello(message))
                return replace(told, card=told.card.model_copy(update=self.changes)).encode()

            def query(self, message: bytes) -> bytes:
                raise AssertionError("nothing is asked")

        other = PackageName(image_sha256="0" * 64, developer=developer.signer.public_key.key_id)
        for changes in ({"package": other}, {"package": None, "model_sha256": "0" * 64}):
            with pytest.raises(CloisterError) as caught:
                open_session(Lying(**changes), verifier(vendor), appraisal())
            assert caught.value.code == "attestation.key_binding"


def refused(operator: Operator, developer: Developer, image: bytes, policy_id: str) -> str:
    """The code of a refusal; no worker is left."""
    before = operator.workers()
    with pytest.raises(CloisterError) as caught:
        operator.serve(developer, image, policy_id)
    assert operator.workers() == before
    return caught.value.code


def test_a_package_of_another_developer_or_one_that_was_changed_is_refused_before_anything_is_asked(
    operator: Operator, developer: Developer
) -> None:
    image, policy_id = developer.image(), developer.allowed()
    changed = bytearray(image)
    changed[-1] ^= 1
    assert refused(operator, developer, bytes(changed), policy_id) == "package.tampered"
    assert refused(operator, developer, b"garbage", policy_id) == "package.malformed"
    developer.signer = EphemeralKeyStore().generate("other")
    assert refused(operator, developer, image, policy_id) == "package.signature"
    assert developer.stated() == []


def test_other_code_another_scope_what_was_revoked_or_used_up_gets_no_key_and_the_developers_log_says_why(
    operator: Operator, developer: Developer, vendor: SimulatedVendor
) -> None:
    image = developer.image()
    right = developer.allowed(releases=1)
    operator.serve(developer, image, right).close()
    for policy_id in (
        right,
        developer.allowed(scope="inference:other:1"),
        developer.allowed(appraisal=appraisal(measurements=("ab" * 48,))),
        developer.allowed(seal_levels=(SealLevel.NO_NAMESPACES,)),
        developer.allowed(tees=(Tee.INTEL_TDX,)),
    ):
        assert refused(operator, developer, image, policy_id) == "release.refused"
    again = developer.allowed(releases=2)
    developer.book.revoke_policy(again, system_clock())
    assert refused(operator, developer, image, again) == "release.refused"
    developer.book.revoke_key(developer.key.data_key, system_clock())
    assert refused(operator, developer, image, developer.allowed(releases=3)) == "release.refused"
    assert developer.stated() == [
        None,
        *("release.count", "release.scope", "attestation.measurement", "sealed.measure_missing"),
        *("release.tee", "release.revoked", "release.revoked"),
    ]


def test_a_machine_that_isnt_attested_gets_no_key(operator: Operator, developer: Developer) -> None:
    operator.platform = SimulatedVendor.create(system_clock).platform("provider", MEASUREMENT)
    assert refused(operator, developer, developer.image(), developer.allowed()) == "release.refused"
    assert developer.stated() == ["attestation.untrusted_root"]


def test_a_simulated_machine_gets_no_key_that_is_for_a_package_in_earnest(
    tmp_path: Path, operator: Operator, vendor: SimulatedVendor
) -> None:
    developer = Developer(tmp_path, vendor, purpose=KeyPurpose.PACKAGE)
    with pytest.raises(CloisterError) as caught:
        developer.allowed()
    assert caught.value.code == "release.test_data"


def test_the_key_of_another_package_opens_nothing_and_ends_the_worker(
    operator: Operator, developer: Developer
) -> None:
    image, own = developer.image(), developer.key
    developer.key = developer.book.create_key(
        DATASET, KeyPurpose.TEST_DATA, developer.wrapping, system_clock()
    )
    assert own != developer.key
    assert refused(operator, developer, image, developer.allowed()) == "package.tampered"


@pytest.mark.parametrize(
    ("files", "description", "code"),
    [
        ({MODEL_FILE: b"garbage" * 100}, DESCRIPTION.as_json(), "enclave.model_file"),
        ({"model.py": b"import os" * 100}, DESCRIPTION.as_json(), "package.malformed"),
        ({MODEL_FILE: b"", "more": bytes(1000)}, DESCRIPTION.as_json(), "package.malformed"),
        ({MODEL_FILE: b"garbage" * 100}, {}, "inference.malformed"),
        (
            {MODEL_FILE: b"garbage" * 100},
            ModelDescription("logistic-regression", {}, 1_000_000, 10_000).as_json(),
            "package.malformed",
        ),
        (
            {MODEL_FILE: b"garbage" * 100},
            {**DESCRIPTION.as_json(), "architecture": "none-such"},
            "model.unknown",
        ),
        (
            {MODEL_FILE: b"garbage" * 100},
            {**DESCRIPTION.as_json(), "model_sha256": "0" * 64},
            "inference.malformed",
        ),
    ],
    ids=[
        "garbage",
        "code",
        "two files",
        "no description",
        "too large to build",
        "no such model",
        "says a hash",
    ],
)
def test_a_developer_who_seals_something_else_than_the_described_model_is_not_served(
    operator: Operator,
    developer: Developer,
    files: dict[str, bytes],
    description: dict[str, object],
    code: str,
) -> None:
    image = seal_package(
        files,
        name="tumour-net",
        version="1",
        data_key=developer.key.data_key,
        key=developer.book.unwrap(developer.key, developer.wrapping),
        developer=developer.signer,
        description=description,  # type: ignore[arg-type]
    )
    assert refused(operator, developer, image, developer.allowed()) == code


def test_a_model_with_more_weights_than_its_description_is_refused_behind_the_seal(
    operator: Operator, developer: Developer
) -> None:
    model = encode_model({**developer.weights, "more": np.zeros(3, np.float32)})
    assert (
        refused(operator, developer, developer.image(model), developer.allowed()) == "model.weights_mismatch"
    )


def contents(path: Path) -> bytes:
    """A file's bytes; none where it is gone by now, as other programs' in shared memory may be."""
    with suppress(OSError):
        return path.read_bytes()
    return b""


def test_as_root_an_operators_processes_and_files_hold_no_weight_of_the_package_and_its_worker_does(
    developer: Developer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    folder = tmp_path_factory.mktemp("operator")
    vendor = developer.vendor = SimulatedVendor.open(folder, system_clock)
    developer.service._verifier = verifier(vendor)
    image = developer.image()
    (folder / "model.package").write_bytes(image)
    (folder / "developer.pem").write_text(developer.signer.public_key.pem)
    secret = bytes(developer.book.unwrap(developer.key, developer.wrapping))
    largest = max(developer.weights.values(), key=lambda one: one.size).tobytes()
    needles = [largest[:16], largest[64:80], largest[-16:], secret]
    listener = KeyServiceListener(str(folder / "keys.sock"))
    with serving(listener, KeyDesk(developer.service)):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.enclave.inference.packaged_host", str(folder), developer.allowed()],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=ROOT,
        )
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                pytest.skip("no sealed worker is to be had on this kernel")
            server = int(told)
            (worker,) = map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())
            endpoint = SocketEndpoint(str(folder / "socket"))
            found = open_session(endpoint, verifier(vendor), appraisal(), package_sha256=sha256_hex(image))
            assert np.allclose(found.predict(rows()), developer.expected(rows()), atol=1e-6)
            assert occurrences(process.pid, [image[-16:]]) > 0, "the search finds what the operator does hold"
            assert occurrences(worker, needles[:3]) > 0, "the search finds the weights where they are"
            assert occurrences(worker, [secret]) == 0, "the key is wiped when the package is open"
            places = [folder, Path("/dev/shm")]
            files = [path for place in places for path in place.rglob("*")]
            for needle in needles:
                assert occurrences(process.pid, [needle]) == 0
                assert occurrences(server, [needle]) == 0
                assert not [path for path in files if needle in contents(path)]
            endpoint.close()
        finally:
            process.terminate()
            process.wait()
    assert developer.stated() == [None]
