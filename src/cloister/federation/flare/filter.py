"""The NVFlare task-result filter through which alone a result leaves a site.

The decision is the node's (`SiteNode.release`, which asks the one airlock of the house). This class enforces
it: it never passes a message on, it builds a new one from what was released.

NVFlare runs a site's own filters before those of the job, so that a job's filter could put something back.
Whoever runs last must therefore not trust what it is handed: a second pass through this filter builds the
message again from what the node released in this round, and drops all else.
"""

from __future__ import annotations

from collections.abc import Mapping

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from cloister.core.errors import CloisterError
from cloister.federation.flare.messages import (
    RAW_RESULT,
    RELEASED,
    SCALARS,
    SITE_LOG,
    UPDATE_SHA256,
    error_code,
    error_reply,
    site_node,
)
from cloister.federation.node import ReleasedUpdate
from cloister.immune.errors import CALL_BLOCKED, CallBlocked


class AirlockFilter(Filter):
    """Rebuilds what leaves; anything it cannot rebuild becomes an error reply without content."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The message that may leave in place of `shareable`."""
        return_code = shareable.get_return_code()
        if return_code != ReturnCode.OK:
            return error_reply(return_code, error_code(shareable))
        round_number = shareable.get_header(AppConstants.CURRENT_ROUND)
        released = fl_ctx.get_prop(RELEASED)
        if not isinstance(released, ReleasedUpdate):
            raw = shareable.get(RAW_RESULT)
            if not isinstance(raw, Mapping) or not isinstance(round_number, int):
                return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, "federation.update_refused")
            try:
                released = site_node(fl_ctx).release(round_number, raw)
            except CloisterError as error:
                return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, error.code)
            except CallBlocked:
                return error_reply(ReturnCode.EXECUTION_RESULT_ERROR, CALL_BLOCKED)
            fl_ctx.set_prop(RELEASED, released, private=True, sticky=False)
        return _message(released, round_number)


def _message(released: ReleasedUpdate, round_number: int) -> Shareable:
    dxo = DXO(
        DataKind.WEIGHTS,
        data=dict(released.tensors),
        meta={
            UPDATE_SHA256: released.sha256,
            SCALARS: dict(released.scalars),
            SITE_LOG: released.site_log,
        },
    )
    message = dxo.to_shareable()
    message.set_return_code(ReturnCode.OK)
    message.set_header(AppConstants.CURRENT_ROUND, round_number)
    return message
