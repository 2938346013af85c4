"""What can go wrong in privacy. A refusal names the rule, never a record's content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cloister.core.errors import CloisterError


class PrivacyError(CloisterError):
    """A privacy parameter, plan or dataset that can't be trained on."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "privacy.budget_invalid": "An epsilon, delta or limit is out of range.",
        "privacy.delta_too_large": "Delta is not below one over the number of protected units.",
        "privacy.group_too_small": "A dataset holds fewer records or subjects than its minimum group size.",
        "privacy.plan_invalid": "A training plan holds an impossible value.",
        "privacy.unreachable_target": "No amount of noise reaches the target epsilon.",
        "privacy.data_invalid": "The training data have the wrong shape or type, or hold non-finite values.",
        "privacy.not_minimised": "A convex model was not fitted exactly enough for its noise to protect.",
        "privacy.tuning_invalid": "A tuning holds an impossible value, or was run other than planned.",
        "privacy.release_refused": "Something was to leave that is neither private by noise nor public.",
        "privacy.randomness_invalid": "A source of randomness was asked for something it can't give.",
        "privacy.accountant_refused": "There is no such accountant, or it understates epsilon.",
        "privacy.wrong_unit": "Something is counted by another unit than the budget protects.",
        "privacy.mock_refused": "Training without noise was asked for where it isn't allowed.",
        "privacy.audit_impossible": "An audit's parameters, or the trainer, don't allow a verdict.",
    }


class ModelError(PrivacyError):
    """A model that is unknown, or whose structure breaks per-record privacy."""

    CODES: ClassVar[Mapping[str, str]] = {
        "model.unknown": "No model is registered under this name.",
        "model.already_registered": "A model is registered under this name already.",
        "model.parameters_invalid": "The parameters of a model are unknown or out of range.",
        "model.layer_refused": "The model has a layer whose output for one record depends on other records.",
        "model.layer_unsupported": "The model has a layer that is not on the list of safe layers.",
        "model.mixes_records": "The model's output for one record changes with the rest of the batch.",
        "model.weights_mismatch": "The weights do not have the model's names, shapes and types.",
    }


class LedgerError(PrivacyError):
    """A budget ledger that can't be used: training stops, closed on error."""

    exit_code: ClassVar[int] = 5
    CODES: ClassVar[Mapping[str, str]] = {
        "ledger.missing": "The budget ledger does not exist.",
        "ledger.exists": "A budget ledger exists already at this path.",
        "ledger.corrupt": "The budget ledger was damaged or edited.",
        "ledger.rolled_back": "The site's own log states spends that the budget ledger doesn't hold.",
        "ledger.other_dataset": "The budget ledger belongs to another dataset.",
        "ledger.other_terms": "The budget ledger was made for another mode, unit or delta than is asked for.",
        "ledger.clock_backwards": "The clock stands before the newest entry of the budget ledger.",
        "ledger.newer_version": "The budget ledger was written by a newer version.",
        "ledger.unavailable": "The budget ledger can't be read or written now.",
        "ledger.reservation_unknown": "The reservation is not in this ledger.",
        "ledger.reservation_settled": "The reservation was settled before.",
        "ledger.settlement_invalid": "More steps are settled than were reserved, or fewer than none.",
    }


class BudgetExceeded(LedgerError):  # noqa: N818 - the name people look for
    """A spend that would pass a limit: refused before anything is spent."""

    exit_code: ClassVar[int] = 3
    CODES: ClassVar[Mapping[str, str]] = {
        "ledger.budget_exceeded": "The spend would pass a privacy limit, so it is refused before it starts.",
        "ledger.too_many_mechanisms": "A ledger holds as many different mechanisms as a statement can name.",
    }
