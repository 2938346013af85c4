"""Whatever becomes of a job, and of the ending of one site, every site's worker is ended."""

from __future__ import annotations

from typing import cast

import pytest

from cloister.federation import SiteRuntime
from cloister.workflow.training import _ended


class Site:
    """Fails to end as often as it is told."""

    def __init__(self, failures: int, error: type[BaseException] = OSError) -> None:
        self.failures, self.error, self.ended = failures, error, False

    def end(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        self.ended = True


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_site_whose_end_fails_is_ended_again_and_keeps_no_other_from_its_end(
    error: type[BaseException],
) -> None:
    sites = {"north": Site(0), "south": Site(1, error), "west": Site(0)}
    with pytest.raises(error), _ended(cast("dict[str, SiteRuntime]", sites)):
        pass
    assert all(one.ended for one in sites.values())


def test_the_jobs_own_error_passes_where_every_site_ends() -> None:
    sites = {"north": Site(0), "south": Site(0)}
    with pytest.raises(ValueError, match="the job"), _ended(cast("dict[str, SiteRuntime]", sites)):
        raise ValueError("the job")
    assert all(one.ended for one in sites.values())
