"""The one error type of the policy room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cloister.core.errors import CloisterError


class PolicyError(CloisterError):
    """A document or a request that policy refuses."""

    exit_code: ClassVar[int] = 3
    CODES: ClassVar[Mapping[str, str]] = {
        "policy.wrong_key": "A manifest or request is signed by another key, or names another.",
        "policy.wrong_type": "The signed envelope holds another kind of document than the one expected.",
        "policy.not_canonical": "A signed document isn't the canonical encoding of its own content.",
        "policy.unknown_hospital": "A hospital or site is asked for that the document doesn't name.",
        "policy.refused": "A request or job asks for what isn't allowed; the details list every reason.",
    }
