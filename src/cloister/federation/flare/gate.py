"""The hub's gate: every site is challenged before the first round, and only admitted sites get a task.

The challenge travels over NVFlare's auxiliary messages, the verdict is the hub node's. A site that is not
connected, does not answer in time or answers something else has given no evidence, and is refused like one
with bad evidence.
"""

from __future__ import annotations

import time

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from cloister.federation.flare.messages import EVIDENCE, JOB_ID, NONCE, POLICY_ID, QUOTE_TOPIC
from cloister.federation.node import Challenge, HubNode

_NOT_THERE_YET = frozenset({ReturnCode.COMMUNICATION_ERROR, ReturnCode.TOPIC_UNKNOWN, ReturnCode.TIMEOUT})
_PAUSE_SECONDS = 0.2


class AttestationGate(FLComponent):
    """Challenges sites one after the other.

    Args:
        answer_timeout: seconds to wait for one answer.
        start_timeout: seconds in which a connected site may still be starting.
    """

    def __init__(self, answer_timeout: float = 10.0, start_timeout: float = 60.0) -> None:
        super().__init__()
        self._answer_timeout = answer_timeout
        self._start_timeout = start_timeout

    def admitted(
        self, hub: HubNode, sites: list[str], fl_ctx: FLContext, abort_signal: Signal
    ) -> tuple[str, ...]:
        """The names of the sites that may take part, in the order given."""
        connected = {client.name for client in fl_ctx.get_engine().get_clients()}
        deadline = time.monotonic() + self._start_timeout
        passed = []
        for site in sites:
            challenge = hub.challenge(site)
            evidence = None
            if site in connected:
                evidence = self._ask(site, challenge, fl_ctx, deadline, abort_signal)
            if hub.admit(site, challenge, evidence).admitted:
                passed.append(site)
        return tuple(passed)

    def _ask(
        self, site: str, challenge: Challenge, fl_ctx: FLContext, deadline: float, abort_signal: Signal
    ) -> bytes | None:
        request = Shareable(
            {NONCE: challenge.nonce, JOB_ID: challenge.job_id, POLICY_ID: challenge.policy_id}
        )
        while not abort_signal.triggered:
            replies = fl_ctx.get_engine().send_aux_request(
                targets=[site],
                topic=QUOTE_TOPIC,
                request=request,
                timeout=self._answer_timeout,
                fl_ctx=fl_ctx,
                optional=True,
            )
            reply = (replies or {}).get(site)
            code = reply.get_return_code() if isinstance(reply, Shareable) else ReturnCode.COMMUNICATION_ERROR
            if code in _NOT_THERE_YET and time.monotonic() < deadline:
                time.sleep(_PAUSE_SECONDS)
                continue
            evidence = reply.get(EVIDENCE) if isinstance(reply, Shareable) else None
            return evidence if code == ReturnCode.OK and isinstance(evidence, bytes) else None
        return None
