"""What is said of a site that was attested, while a job runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cloister.cli.progress import JobProgress
from cloister.enclave.protection import Protection
from cloister.federation.events import SiteAdmitted

SPEC = SimpleNamespace(
    file=SimpleNamespace(federation=SimpleNamespace(rounds=2), data=SimpleNamespace(sites={"north": {}}))
)


@pytest.mark.parametrize(
    ("protection", "said"),
    [
        (Protection.PROTECTED, "attested"),
        (Protection.SIMULATED, "attested (SIMULATED)"),
        (Protection.INSECURE, "attested (INSECURE)"),
    ],
)
def test_a_site_is_shown_as_attested_with_the_runs_own_mark(
    protection: Protection, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with JobProgress(SPEC, protection.mark) as progress:  # type: ignore[arg-type]
        progress.show(SiteAdmitted("north"))
    (line,) = (one for one in capsys.readouterr().err.splitlines() if "north" in one and "attested" in one)
    assert line.endswith(said)
