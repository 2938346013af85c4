"""What can go wrong in a federated job, each with a stable code."""

from __future__ import annotations

from cloister.core.errors import CloisterError


class FederationError(CloisterError):
    """A federated job did not come to its end."""

    exit_code = 5
    CODES = {
        "federation.quorum_lost": "During a round fewer sites answered than the job needs.",
        "federation.aborted": "Somebody asked the job to stop.",
        "federation.site_failed": "A site's round ended with an unexpected exception.",
        "federation.site_timeout": "A site did not answer within the round's timeout.",
        "federation.site_stuck": "A site's thread did not end after the job ended.",
        "federation.bad_task": "A site received a task that does not fit the job it agreed to.",
        "federation.bad_update": "A site's update does not fit the global model.",
        "federation.update_refused": "A site's raw result has no form that its airlock could look at.",
        "federation.incomplete": "The engine ended a job whose record of rounds is not complete.",
        "federation.no_node": "An NVFlare component found no node to work for.",
    }


class JobError(FederationError):
    """A job cannot be run as it is written."""

    exit_code = 2
    CODES = {
        "federation.strategy_unavailable": "The aggregation strategy has no controller in this release.",
        "federation.unknown_site": "A site takes part that the job does not name.",
        "federation.wrong_data": "A site's records are not of the form the job's model takes.",
    }


class RefusalError(FederationError):
    """A job ended because sites refused to go on, each under its own rules."""

    exit_code = 3
    CODES = {
        "federation.sites_refused": "So many sites refused a round that fewer are left than the job needs.",
    }


class AdmissionError(FederationError):
    """A job did not start because too few sites could prove what they run."""

    exit_code = 4
    CODES = {
        "federation.too_few_sites": "Fewer sites passed attestation than the job needs.",
    }
