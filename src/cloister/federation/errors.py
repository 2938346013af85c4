"""What can go wrong in a federated job, each with a stable code."""

from __future__ import annotations

from types import MappingProxyType

from cloister.core.errors import CloisterError

_REFUSALS = (
    "ledger.",
    "airlock.",
    "policy.",
    "evidence.",
    "federation.update_refused",
    "federation.foreign_",
    "immune.",
)


def is_refusal(code: str) -> bool:
    """Whether a site that left with this code refused under its own rules, rather than failed."""
    return code.startswith(_REFUSALS)


class FederationError(CloisterError):
    """A federated job did not come to its end."""

    exit_code = 5
    CODES = MappingProxyType(
        {
            "federation.quorum_lost": "During a round fewer sites answered than the job needs.",
            "federation.aborted": "Somebody asked the job to stop.",
            "federation.site_failed": "A site's round ended with an unexpected exception.",
            "federation.site_timeout": "A site did not answer within the round's timeout.",
            "federation.site_stuck": "A site's thread did not end after the job ended.",
            "federation.bad_task": "A site received a task that does not fit the job it agreed to.",
            "federation.bad_update": "A site's update does not fit the global model.",
            "federation.bad_log": "A site's log isn't proven to continue what the hub has seen of it.",
            "federation.update_refused": "A site's raw result has no form that its airlock could look at.",
            "federation.incomplete": "The engine ended a job whose record of rounds is not complete.",
            "federation.no_engine_part": "NVFlare asked for a part that a job in one process does not have.",
            "federation.no_node": "An NVFlare component found no node to work for.",
        }
    )


class JobError(FederationError):
    """A job cannot be run as it is written."""

    exit_code = 2
    CODES = MappingProxyType(
        {
            "federation.strategy_unavailable": "The aggregation strategy cannot run in this release.",
            "federation.unknown_site": "A site takes part that the job does not name.",
            "federation.wrong_unit": "Subjects are protected, and a site's records don't say whose they are.",
            "federation.wrong_delta": "A site's ledger counts with a larger delta than the job states.",
        }
    )


class RefusalError(FederationError):
    """A job ended because sites refused to go on, each under its own rules."""

    exit_code = 3
    CODES = MappingProxyType(
        {
            "federation.sites_refused": "Sites refused a round, and fewer are left than the job needs.",
            "federation.foreign_folder": "The folder that arrived at a site is not what its job compiles to.",
            "federation.foreign_start": "A site was sent other weights to start from than the job's own.",
        }
    )


class AdmissionError(FederationError):
    """A job did not start because too few sites could prove what they run."""

    exit_code = 4
    CODES = MappingProxyType(
        {
            "federation.too_few_sites": "Fewer sites passed attestation than the job needs.",
        }
    )
