"""The one NVFlare executor of a site: it asks the site's node, for every strategy.

Rules:
- a task other than training is unknown (TASK_UNKNOWN);
- a task that does not fit the job the site agreed to is BAD_TASK_DATA;
- what the site's node refuses is EXECUTION_RESULT_ERROR with the refusal's stable code, never its message;
  so is what the site's immune system stops;
- any other exception is EXECUTION_EXCEPTION, and its text stays at the site; code that asks the process to
  exit has failed too, and takes no other party with it;
- the raw result goes to the airlock filter under a key that nothing else reads.
"""

from __future__ import annotations

import numpy as np
from nvflare.apis.dxo import DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from cloister.core.errors import CloisterError
from cloister.federation.compile import TRAIN_TASK
from cloister.federation.errors import FederationError
from cloister.federation.flare.messages import (
    EVIDENCE,
    HUB_LOG,
    HUB_LOG_SEEN,
    JOB_ID,
    NONCE,
    POLICY_ID,
    QUOTE_TOPIC,
    RAW_RESULT,
    error_reply,
    site_node,
)
from cloister.federation.node import Challenge, RoundTask
from cloister.immune.errors import CALL_BLOCKED, CallBlocked


class SiteExecutor(Executor):
    """Runs rounds and answers challenges for the node of this site.

    Args:
        job_sha256: SHA-256 of the `FederationJob` from which the job folder was compiled.
    """

    def __init__(self, job_sha256: str) -> None:
        super().__init__()
        self._job_sha256 = job_sha256

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Starts to answer challenges when the run starts."""
        if event_type == EventType.START_RUN:
            fl_ctx.get_engine().register_aux_message_handler(QUOTE_TOPIC, self._quote)

    def _quote(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        nonce, job_id, policy_id = request.get(NONCE), request.get(JOB_ID), request.get(POLICY_ID)
        if not (isinstance(nonce, bytes) and isinstance(job_id, str) and isinstance(policy_id, str)):
            return make_reply(ReturnCode.BAD_REQUEST_DATA)
        try:
            node = site_node(fl_ctx)
            evidence = node.quote(Challenge(nonce, job_id, policy_id))
            seen = node.hub_log_seen()
        except CloisterError as error:
            return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, error.code)
        except CallBlocked:
            return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, CALL_BLOCKED)
        reply = make_reply(ReturnCode.OK)
        reply[EVIDENCE] = evidence
        reply[HUB_LOG_SEEN] = seen
        return reply

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """One round, as the module's rules say."""
        if task_name != TRAIN_TASK:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        node = site_node(fl_ctx)
        if node.job_sha256 != self._job_sha256:
            return error_reply(ReturnCode.BAD_TASK_DATA, "federation.bad_task")
        try:
            task = _read_task(shareable)
        except FederationError as error:
            return error_reply(ReturnCode.BAD_TASK_DATA, error.code)
        try:
            raw = node.train_round(task, lambda: bool(abort_signal.triggered))
        except CloisterError as error:
            return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, error.code)
        except CallBlocked:
            return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, CALL_BLOCKED)
        except (SystemExit, KeyboardInterrupt):
            return error_reply(ReturnCode.EXECUTION_EXCEPTION, "federation.site_failed")
        reply = make_reply(ReturnCode.OK)
        reply.set_header(AppConstants.CURRENT_ROUND, task.round)
        reply[RAW_RESULT] = raw
        return reply


def _read_task(shareable: Shareable) -> RoundTask:
    """Reads a round's task into copies of the site's own.

    Raises:
        FederationError: `federation.bad_task`.
    """
    round_number = shareable.get_header(AppConstants.CURRENT_ROUND)
    total_rounds = shareable.get_header(AppConstants.NUM_ROUNDS)
    try:
        dxo = from_shareable(shareable)
    except (KeyError, TypeError, ValueError):
        dxo = None
    hub_log = None if dxo is None else dxo.get_meta_prop(HUB_LOG)
    if (
        dxo is None
        or not isinstance(hub_log, bytes)
        or dxo.data_kind != DataKind.WEIGHTS
        or not isinstance(round_number, int)
        or not isinstance(total_rounds, int)
        or not 0 <= round_number < total_rounds
        or not isinstance(dxo.data, dict)
        or not all(
            isinstance(name, str) and isinstance(value, np.ndarray) for name, value in dxo.data.items()
        )
    ):
        raise FederationError("federation.bad_task", "a task is not a round of training with weights")
    weights = {name: np.array(dxo.data[name], copy=True) for name in sorted(dxo.data)}
    return RoundTask(round_number, total_rounds, weights, hub_log)
