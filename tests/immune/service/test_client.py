"""From the same settings: a service, a sender to it, and its status."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from cloister.immune.errors import ImmuneError
from cloister.immune.service import open_sender, read_status, write_secret
from cloister.immune.settings import ApiSettings, CellAgentSettings, ImmuneSettings
from tests.immune.service.brains import MemoryBrain, event

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from cloister.immune.service import serving


class Told:
    def as_json(self) -> dict[str, Any]:
        return event()


@pytest.mark.parametrize("with_secret", [True, False])
def test_the_settings_of_a_service_are_those_of_its_sender(tmp_path: Path, *, with_secret: bool) -> None:
    api = ApiSettings(port=0)
    if with_secret:
        write_secret(tmp_path / "token", bytes(range(32)))
        api = ApiSettings(port=0, token_file=str(tmp_path / "token"))
    brain = MemoryBrain()
    with serving(brain, api) as url:
        named = api.model_copy(update={"url": url})
        sender = open_sender(
            ImmuneSettings(api=named, cellagent=CellAgentSettings(batch_size=2, buffer_size=7))
        )
        for _ in range(3):
            assert sender.offer(Told())
        until = time.monotonic() + 5
        while len(brain.taken) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(brain.taken) == 2, "a batch of the size that is set goes at once"
        sender.close(5.0)
        status = read_status(named)
        by_port = read_status(api.model_copy(update={"port": int(url.rpartition(":")[2])}))
    assert len(brain.taken) == 3
    assert set(status) == set(by_port) == {"service", "brain"}


def test_a_sender_to_nowhere_is_a_setting_that_lacks() -> None:
    with pytest.raises(ImmuneError) as caught:
        open_sender(ImmuneSettings())
    assert caught.value.code == "immune.setting_invalid"


def test_a_service_that_is_not_there_is_said_so() -> None:
    """PIC-24.1.b: what stops answering isn't running."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(ImmuneError) as caught:
        read_status(ApiSettings(port=port))
    assert caught.value.code == "immune.unreachable"


def test_another_secret_is_told_from_a_service_that_is_not_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_secret(tmp_path / name, name.encode() * 20)
    settings = ApiSettings(port=0, token_file=str(tmp_path / "one"))
    with serving(MemoryBrain(), settings) as url, pytest.raises(ImmuneError) as caught:
        read_status(ApiSettings(url=url, token_file=str(tmp_path / "two")))
    assert caught.value.code == "immune.telemetry_unproven"
