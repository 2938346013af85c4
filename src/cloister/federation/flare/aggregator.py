"""NVFlare's aggregator port over our one aggregation function.

Updates are kept until the round ends and then summed in sorted site order, so that the order of arrival does
not show in the result.
"""

from __future__ import annotations

from collections.abc import Mapping

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator

from cloister.enclave.tensors import update_sha256
from cloister.federation.aggregation import require_same_form, weighted_mean
from cloister.federation.errors import FederationError
from cloister.federation.flare.messages import SCALARS, UPDATE_SHA256
from cloister.federation.node import ReleasedUpdate, Weights


class SiteOrderedAggregator(ModelAggregator):
    """Collects one round's updates. `start` begins a round."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: dict[str, ReleasedUpdate] = {}
        self.shares: Mapping[str, float] = {}
        self.model: Weights = {}

    def start(self, model: Weights, shares: Mapping[str, float]) -> None:
        """Begins a round from the weights that are sent out, with each site's share."""
        self.updates = {}
        self.model = model
        self.shares = shares

    def accept_model(self, model: FLModel) -> None:
        """Takes one site's update.

        Raises:
            FederationError: `federation.bad_update` when it does not fit the model, is not what its site
                stated, or the site has no share.
        """
        site = model.meta["client_name"]
        if not isinstance(model.params, dict) or site not in self.shares:
            raise FederationError("federation.bad_update", "an update is not a set of named tensors")
        require_same_form(model.params, self.model)
        tensors = {name: model.params[name] for name in sorted(model.params)}
        scalars = model.meta.get(SCALARS, {})
        if update_sha256(tensors, scalars) != model.meta.get(UPDATE_SHA256):
            raise FederationError("federation.bad_update", "an update is not the one its site stated")
        self.updates[site] = ReleasedUpdate(tensors, model.meta[UPDATE_SHA256], scalars)

    def aggregate_model(self) -> FLModel:
        """The weighted mean of the updates taken since `start`."""
        mean = weighted_mean({site: update.tensors for site, update in self.updates.items()}, self.shares)
        return FLModel(params=mean, params_type=ParamsType.FULL)

    def reset_stats(self) -> None:
        """NVFlare calls this before a round; `start` does the work."""
