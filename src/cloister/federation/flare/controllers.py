"""NVFlare's FedAvg workflow with what it lacks: admission first, a quorum per round, and no silent failure.

Rules:
- no site gets a task before the gate admitted it, and the gate runs before the first round;
- a round goes to every site that is still in, and ends when all have answered or its timeout has passed;
- a site that refuses, fails, sends what does not fit or is late is out for the rest of the job, and is told
  to stop;
- with a round goes what the hub shows of its log, and an update is used only if what its site shows of its
  own log is in order;
- a round counts only with at least `min_sites` updates; otherwise the job fails, as soon as that is certain;
- a round whose updates were skipped by NVFlare cannot pass: the hub gets exactly the updates that were
  averaged.

Source of the loop: nvflare.app_common.workflows.fedavg.FedAvg.run (2.9.0).
"""

from __future__ import annotations

from collections.abc import Callable

from nvflare.apis.fl_constant import ReservedTopic, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.wf_comm_spec import WFCommSpec
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.fedavg import FedAvg

from cloister.core.errors import CloisterError
from cloister.federation.errors import AdmissionError, FederationError, RefusalError, is_refusal
from cloister.federation.flare.aggregator import SiteOrderedAggregator
from cloister.federation.flare.messages import HUB_LOG, SITE_LOG, TASKS_POSTED, error_code, hub_node
from cloister.federation.node import AggregatedRound, HubNode, SiteFailure, Weights


class QuorumFedAvg(FedAvg):
    """FedAvg over admitted sites with a quorum.

    Args:
        sites: the job's sites.
        num_rounds: rounds to run.
        min_sites: the quorum, for admission and for each round.
        round_timeout: seconds a round waits for its sites.
        task_check_period: seconds between two looks at the standing tasks.
    """

    def __init__(
        self,
        sites: list[str],
        num_rounds: int,
        min_sites: int,
        round_timeout: int,
        task_check_period: float = 0.002,
    ) -> None:
        super().__init__(
            persistor_id="",
            save_filename="",
            num_rounds=num_rounds,
            ignore_result_error=True,
            task_check_period=task_check_period,
            aggregator=SiteOrderedAggregator(),
        )
        self._sites = set(sites)
        self._min_sites = min_sites
        self._round_timeout = round_timeout
        self._left: dict[str, str] = {}
        self._sent: Weights = {}
        self._hub: HubNode

    def set_communicator(self, communicator: WFCommSpec) -> None:
        """Sets the communicator's period too: NVFlare 2.9.0 writes it to an attribute that nobody reads."""
        super().set_communicator(communicator)
        communicator._task_check_period = self._task_check_period

    def run(self) -> None:
        """Admission, then NVFlare's FedAvg.

        Raises:
            AdmissionError: too few sites were admitted.
            RefusalError: too few sites are left, some because they refused.
            FederationError: too few sites are left, none of them refused.
        """
        self._hub = hub_node(self.fl_ctx)
        try:
            self._admit()
            super().run()
        except CloisterError as error:
            self._hub.failed(error)
            raise

    def _admit(self) -> None:
        gate = self.engine.get_component("gate")
        admitted = gate.admitted(self._hub, sorted(self._sites), self.fl_ctx, self.abort_signal)
        self._sites = set(admitted)
        if len(admitted) < self._min_sites and not self.abort_signal.triggered:
            raise AdmissionError(
                "federation.too_few_sites",
                f"{len(admitted)} sites were admitted, the job needs {self._min_sites}",
                "see each refused site's attestation verdict for the reason",
            )

    def load_model(self) -> FLModel:
        """The hub's initial weights."""
        return FLModel(params_type=ParamsType.FULL, params=dict(self._hub.initial_weights()))

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """Every site that is still in."""
        return sorted(self._sites)

    def send_model(
        self, *, task_name: str, targets: list[str], data: FLModel, callback: Callable[[FLModel], bool]
    ) -> None:
        """Sends a round out and lets waiting sites know."""
        self._sent = dict(data.params)
        self.aggregator.start(self._sent, {site: self._hub.site_weight(site) for site in targets})
        data.meta = {
            **(data.meta or {}),
            HUB_LOG: self._hub.round_started(self.current_round, tuple(targets)),
        }
        self.broadcast_model(
            data=data,
            task_name=task_name,
            targets=targets,
            min_responses=len(targets),
            timeout=self._round_timeout,
            blocking=False,
            callback=callback,
        )
        self.event(TASKS_POSTED)

    def _accept_train_result(
        self,
        client_name: str,
        result: Shareable,
        fl_ctx: FLContext,
        is_unknown_task: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
    ) -> bool:
        if is_unknown_task:
            return False
        if result.get_return_code() != ReturnCode.OK:
            self._leave(client_name, error_code(result))
            return False
        return bool(super()._accept_train_result(client_name, result, fl_ctx))

    def _aggregate_one_result(self, result: FLModel) -> bool:
        site = result.meta["client_name"]
        site_log = result.meta.get(SITE_LOG)
        try:
            self._hub.site_answered(site, site_log if isinstance(site_log, bytes) else b"")
            accepted = bool(super()._aggregate_one_result(result))
        except FederationError as error:
            self._leave(site, error.code)
            return False
        if not accepted:
            self._leave(site, "federation.bad_update")
        return accepted

    def _get_aggregated_result(self) -> FLModel:
        if len(self._sites) >= self._min_sites:
            for site in sorted(self._sites - set(self.aggregator.updates)):
                self._leave(site, "federation.site_timeout")
        if min(len(self.aggregator.updates), len(self._sites)) < self._min_sites:
            raise self._quorum_lost()
        return super()._get_aggregated_result()

    def _quorum_lost(self) -> FederationError:
        message = (
            f"in round {self.current_round + 1} the job has {len(self._sites)} sites left "
            f"and needs {self._min_sites}"
        )
        hint = "the details name each site that left, and why"
        if any(is_refusal(code) for code in self._left.values()):
            return RefusalError("federation.sites_refused", message, hint)
        return FederationError("federation.quorum_lost", message, hint)

    def save_model(self, model: FLModel) -> None:
        """Hands the round to the hub, which keeps the weights and writes the statement."""
        updates = dict(self.aggregator.updates)
        shares = {site: self.aggregator.shares[site] for site in updates}
        self._hub.aggregated(
            AggregatedRound(self.current_round, updates, shares, before=self._sent, after=dict(model.params))
        )

    def _leave(self, site: str, code: str) -> None:
        self._sites.discard(site)
        self._left[site] = code
        self._hub.site_failed(SiteFailure(site, self.current_round, code))
        self.engine.send_aux_request(
            targets=[site],
            topic=ReservedTopic.END_RUN,
            request=Shareable(),
            timeout=0.0,
            fl_ctx=self.fl_ctx,
            optional=True,
        )
        if len(self._sites) < self._min_sites:
            self.cancel_all_tasks()
