"""Numbers that may leave beside weights: only what was released privately and paid for.

A training loss is exact, so it isn't private, whatever it is rounded to. A number therefore reaches the
airlock together with the release that made it: noise on a figure of bounded values, or a bucket that
randomised response chose. Both are made by :mod:`cloister.privacy`, which hands them out only after the
dataset's ledger was charged and the spend was stated. The airlock compares the number with its charge bit for
bit: what the training code says of itself is never looked at.

A charge is refused for what no private path made, such as a figure whose noise was seeded for a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cloister.evidence.transcript import Event

if TYPE_CHECKING:
    from cloister.privacy.buckets import BucketRelease
    from cloister.privacy.release import Release


@dataclass(frozen=True, slots=True)
class Charge:
    """A number that was paid for.

    Attributes:
        value: what was released.
        paid_as: what hides a record in it.
        event: what the ledger was charged, for this and whatever was released together with it.
    """

    value: float
    paid_as: Literal["noise", "bucket"]
    event: Event


def charges_of(
    release: "Release | BucketRelease", name: str, *, accept_test_randomness: bool = False
) -> Mapping[str, Charge]:
    """Make the charges of a release that its ledger has paid for.

    Args:
        release: what :mod:`cloister.privacy` handed out.
        name: what its number is called in an update; where it has several, ``name.figure`` each.
        accept_test_randomness: as for :func:`cloister.privacy.leaving.may_leave`.

    Returns:
        By name in an update, the number and what paid for it.

    Raises:
        PrivacyError: ``privacy.release_refused`` for what may not leave.
    """
    from cloister.privacy.buckets import BucketRelease
    from cloister.privacy.leaving import may_leave

    may_leave(release, accept_test_randomness=accept_test_randomness)
    if isinstance(release, BucketRelease):
        return {name: Charge(release.value, "bucket", release.event)}
    figures = {figure: one.value for figure, one in release.figures.items()}
    if len(figures) == 1:
        return {name: Charge(release.only.value, "noise", release.event)}
    return {f"{name}.{figure}": Charge(value, "noise", release.event) for figure, value in figures.items()}
