"""Which of a source's sites a run asks for."""

from collections.abc import Sequence

from cloister.health.errors import HealthError


def choose_sites(wanted: Sequence[str] | None, known: Sequence[str], source: str) -> tuple[str, ...]:
    """The sites to load, in the order asked for.

    Args:
        wanted: names asked for, or None for all.
        known: the source's own names.
        source: the source's name, for messages.

    Returns:
        Distinct known names.

    Raises:
        HealthError: a name is unknown or asked for twice, or none is asked for.
    """
    if wanted is None:
        return tuple(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted or len(set(wanted)) != len(wanted):
        raise HealthError(
            "health.unknown_site",
            f"The sites asked for aren't sites of {source}.",
            f"Name each at most once, from: {', '.join(known)}.",
            details=[f"unknown site: {name}" for name in unknown],
        )
    return tuple(wanted)
