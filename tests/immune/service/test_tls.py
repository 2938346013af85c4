"""Certificates on both sides: who shows none, or one of another authority, gets no word through."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from cloister.core.errors import KeyStoreError
from cloister.immune.errors import ImmuneError
from cloister.immune.service import HttpPost, client_context, server, server_context, serving
from cloister.immune.service.delivery import Reply
from cloister.immune.settings import ApiSettings
from tests.immune.service.brains import MemoryBrain, batch, event

NOW = datetime.now(UTC)


class Authority:
    """Issues certificates for this machine into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        root = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(root.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, host: str = "127.0.0.1") -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        made = self._builder(subject, key).add_extension(names, critical=False)
        certificate = self.folder / f"{name}.crt"
        certificate.write_bytes(
            made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        file = self.folder / f"{name}.key"
        file.touch(0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(certificate), str(file)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
        )


Side = Callable[..., ApiSettings]


@pytest.fixture
def side(tmp_path: Path) -> Side:
    authorities = {name: Authority(tmp_path, name) for name in ("ours", "theirs")}

    def settings(name: str, issuer: str = "ours", trusted: str = "ours", **changes: str) -> ApiSettings:
        certificate, key = authorities[issuer].issue(name, changes.get("host", "127.0.0.1"))
        return ApiSettings(
            port=0, certificate_file=certificate, key_file=key, authority_file=str(authorities[trusted].file)
        )

    return settings


def sent(url: str, settings: ApiSettings) -> Reply:
    return HttpPost(url, tls=client_context(settings)).begin(batch(event()))().reply


def test_with_certificates_on_both_sides_telemetry_goes_through(side: Side) -> None:
    brain = MemoryBrain()
    with serving(brain, side("service")) as url:
        assert url.startswith("https://")
        assert sent(url, side("agent")) is Reply.TAKEN
    assert len(brain.taken) == 1


def test_a_sender_of_another_authority_gets_nothing_through(side: Side) -> None:
    brain = MemoryBrain()
    with serving(brain, side("service")) as url:
        assert sent(url, side("agent", issuer="theirs")) is Reply.TRY_AGAIN
    assert brain.taken == []


def test_a_service_of_another_authority_is_told_nothing(side: Side) -> None:
    brain = MemoryBrain()
    with serving(brain, side("service", issuer="theirs")) as url:
        assert sent(url, side("agent")) is Reply.TRY_AGAIN
    assert brain.taken == []


def test_a_certificate_for_another_host_is_told_nothing(side: Side) -> None:
    brain = MemoryBrain()
    with serving(brain, side("service", host="192.0.2.1")) as url:
        assert sent(url, side("agent")) is Reply.TRY_AGAIN
    assert brain.taken == []


def test_a_sender_without_a_certificate_gets_nothing_through(side: Side) -> None:
    settings = side("service")
    with serving(MemoryBrain(), settings) as url:
        bare = ssl.create_default_context(cafile=settings.authority_file)
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), context=bare, timeout=5)
        with pytest.raises((OSError, http.client.HTTPException)):  # noqa: PT012 - TLS 1.3 refuses at either
            connection.request("GET", "/health")
            connection.getresponse()


def test_a_sender_that_speaks_an_older_tls_gets_nothing_through(side: Side) -> None:
    with serving(MemoryBrain(), side("service")) as url:
        context = client_context(side("agent"))
        assert context is not None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert HttpPost(url, tls=context).begin(batch(event()))().reply is Reply.TRY_AGAIN


def test_behind_certificates_the_service_may_be_there_for_other_machines(side: Side) -> None:
    settings = side("service").model_copy(update={"host": "0.0.0.0"})
    with serving(MemoryBrain(), settings) as url:
        assert sent(url.replace("0.0.0.0", "127.0.0.1"), side("agent")) is Reply.TAKEN


@pytest.mark.parametrize("lacking", ["certificate_file", "key_file", "authority_file"])
def test_two_of_three_are_a_mistake(side: Side, lacking: str) -> None:
    with pytest.raises(ImmuneError) as caught:
        server_context(side("service").model_copy(update={lacking: None}))
    assert caught.value.code == "immune.setting_invalid"


@pytest.mark.parametrize("name", ["certificate_file", "key_file", "authority_file"])
def test_files_that_are_none_of_these_are_one_typed_error(side: Side, name: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("Mrs Miller")
    wrong.chmod(0o600)
    for path in (wrong, tmp_path / "absent"):
        with pytest.raises(ImmuneError) as caught:
            client_context(side("agent").model_copy(update={name: str(path)}))
        assert caught.value.code == "immune.setting_invalid"
        assert "Miller" not in str(caught.value)


def test_a_key_that_others_can_read_is_refused(side: Side) -> None:
    settings = side("service")
    assert settings.key_file is not None
    Path(settings.key_file).chmod(0o644)
    with pytest.raises(KeyStoreError) as caught:
        server_context(settings)
    assert caught.value.code == "key.permissions"


def test_an_https_address_and_certificates_go_together(side: Side) -> None:
    for url, context in (("https://127.0.0.1", None), ("http://127.0.0.1", client_context(side("agent")))):
        with pytest.raises(ImmuneError) as caught:
            HttpPost(url, tls=context)
        assert caught.value.code == "immune.setting_invalid"


def test_a_handshake_that_never_ends_is_ended(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.5)
    with serving(MemoryBrain(), side("service")) as url:
        silent = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
        began = time.monotonic()
        assert silent.recv(1) == b""
        assert time.monotonic() - began < 4
        silent.close()


def test_fifty_that_connect_and_never_begin_a_handshake_keep_nobody_out(side: Side) -> None:
    with serving(MemoryBrain(), side("service")) as url:
        port = int(url.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(50)]
        assert sent(url, side("agent")) is Reply.TAKEN
        for one in silent:
            one.close()
