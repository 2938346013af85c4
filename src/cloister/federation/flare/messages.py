"""The words that our NVFlare components exchange, and how they find the node they work for.

A back end that runs in one process sets the node as a private property of the run's contexts, which NVFlare
never sends to peers. Elsewhere the machine's own configuration holds it as a component of the same id.
"""

from __future__ import annotations

import re
from typing import cast

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from cloister.federation.errors import FederationError
from cloister.federation.node import HubNode, SiteNode

SITE_NODE = "cloister.site_node"
HUB_NODE = "cloister.hub_node"

QUOTE_TOPIC = "cloister.quote"
NONCE = "cloister.nonce"
JOB_ID = "cloister.job_id"
POLICY_ID = "cloister.policy_id"
EVIDENCE = "cloister.evidence"

RAW_RESULT = "cloister.raw_result"
"""Key of a site's raw result between its executor and its airlock. It never passes the airlock."""
RELEASED = "cloister.released"
UPDATE_SHA256 = "cloister.update_sha256"
SCALARS = "cloister.scalars"

HUB_LOG = "cloister.hub_log"
SITE_LOG = "cloister.site_log"
HUB_LOG_SEEN = "cloister.hub_log_seen"

ERROR_CODE = "cloister.error_code"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}\.[a-z][a-z0-9_]{0,59}")

TASKS_POSTED = "cloister.tasks_posted"
"""Event on the server: new tasks stand ready, a waiting site may ask now."""


def site_node(fl_ctx: FLContext) -> SiteNode:
    """The site node of the machine on which this context lives."""
    return cast(SiteNode, _node(SITE_NODE, fl_ctx))


def hub_node(fl_ctx: FLContext) -> HubNode:
    """The hub node of the machine on which this context lives."""
    return cast(HubNode, _node(HUB_NODE, fl_ctx))


def _node(name: str, fl_ctx: FLContext) -> object:
    node = fl_ctx.get_prop(name)
    if node is None:
        node = fl_ctx.get_engine().get_component(name)
    if node is None:
        raise FederationError("federation.no_node", f"no {name} is configured here")
    return node


def error_reply(return_code: str, code: str) -> Shareable:
    """A reply that carries a return code, our stable error code and nothing else."""
    return make_reply(return_code, {ERROR_CODE: code})


def error_code(reply: Shareable) -> str:
    """The stable code in a peer's reply; an unreadable one reads as a failed site."""
    code = reply.get_header(ERROR_CODE)
    if isinstance(code, str) and _CODE.fullmatch(code):
        return code
    return "federation.site_failed"
