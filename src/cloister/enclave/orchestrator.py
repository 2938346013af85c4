"""The door by which a job is run from code: ``enclave.orchestrate(job)``.

The room doesn't know the workflow above it. An installed distribution offers its orchestrator under the
entry-point group ``cloister.orchestrator``, and it is looked up by name when a job is run.
"""

from pathlib import Path
from typing import Protocol, cast

from cloister.enclave.errors import EnclaveError

GROUP = "cloister.orchestrator"
DEFAULT = "default"


class Orchestrator(Protocol):
    """What an orchestrator offers."""

    def __call__(self, job_definition: Path) -> object:
        """Run a job to its end and answer its result."""
        ...


def orchestrate(job_definition: Path, *, orchestrator: str = DEFAULT) -> object:
    """Run a job with an installed orchestrator.

    Args:
        job_definition: path of the job's file.
        orchestrator: name under which the orchestrator is registered.

    Returns:
        What the orchestrator answers.

    Raises:
        EnclaveError: enclave.no_orchestrator when none is installed under that name.
        CloisterError: whatever the job is refused for.
    """
    from importlib.metadata import entry_points  # a verifier, which loads this room too, needs none

    found = entry_points(group=GROUP, name=orchestrator)
    if not found:
        raise EnclaveError(
            "enclave.no_orchestrator",
            "No installed distribution offers an orchestrator of that name.",
            "Install cloister[cli].",
        )
    run = cast(Orchestrator, next(iter(found)).load())
    return run(job_definition)
