"""What a manifest says of the airlock: what every update is held against before it leaves the site."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from cloister.policy.fields import Count, Section


class NormBound(StrEnum):
    """Whether weights may leave that are further from the received ones than training can move them.

    ``from-clipping``: no; how far that is follows from the clip norm, the steps, the learning rate and the
    noise (`cloister.evidence.change_limit`).
    """

    FROM_CLIPPING = "from-clipping"
    NONE = "none"


class AirlockTerms(Section):
    """What every update is held against before it leaves the site.

    Attributes:
        max_update_bytes: Largest size of one update; 64 MiB at most, whatever stands here.
        norm_bound: How far its weights may be from those that the site received.
        mantissa_bits: Bits of fraction to which each weight is rounded; 23 are all that a float32 has. Fewer
            leave less room for what doesn't belong there, and cost accuracy only below about 8.
        max_update_bits: How much information one update may have room for: 9 and ``mantissa_bits`` for each
            weight. No cap unless written.
        max_job_bits: How much all updates of one job may, in equal shares. No cap unless written.
    """

    max_update_bytes: Count
    norm_bound: Annotated[NormBound, Field(strict=False)]
    mantissa_bits: Annotated[int, Field(ge=1, le=23)]
    max_update_bits: Count | None = None
    max_job_bits: Count | None = None

    @model_serializer(mode="wrap")
    def _unwritten_stays_unwritten(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = write(self)
        return {name: value for name, value in fields.items() if value is not None}
