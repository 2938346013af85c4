"""The hub's gate: every site is challenged before the first round, and only admitted sites get a task.

The challenge travels over NVFlare's auxiliary messages, the verdict is the hub node's. A site that is not
connected, does not answer in time or answers something else has given no evidence, and is refused like one
with bad evidence. An answer also says how much of the hub's log the site has seen.
"""

from __future__ import annotations

import time

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from cloister.federation.flare.messages import EVIDENCE, HUB_LOG_SEEN, JOB_ID, NONCE, POLICY_ID, QUOTE_TOPIC
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
            evidence, seen = None, 0
            if site in connected:
                evidence, seen = self._ask(site, challenge, fl_ctx, deadline, abort_signal)
            if hub.admit(site, challenge, evidence).admitted:
                hub.site_has_seen(site, seen)
                passed.append(site)
        return tuple(passed)

    def _ask(
        self, site: str, challenge: Challenge, fl_ctx: FLContext, deadline: float, abort_signal: Signal
    ) -> tuple[bytes | None, int]:
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
            if not isinstance(reply, Shareable) or code != ReturnCode.OK:
                return None, 0
            evidence, seen = reply.get(EVIDENCE), reply.get(HUB_LOG_SEEN)
            return (evidence, seen) if isinstance(evidence, bytes) and type(seen) is int else (None, 0)
        return None, 0
