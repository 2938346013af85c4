"""How a request is read and how one is refused."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cloister.core.errors import CloisterError
from cloister.immune.errors import ImmuneError

_JSON: Final = "application/json"
_SHOWN_DETAILS: Final = 20
_HINTS: Final = {
    400: "Send one JSON object in UTF-8, as docs/reference/immune-service.md shows it.",
    401: "Give both sides the same api.token_file, and set their clocks.",
    404: "Ask for one of the paths of docs/reference/immune-service.md.",
    405: "Use the method that the Allow header names.",
    408: "Send fewer events at once, or look at the network between.",
    409: "Sign every batch anew; look who sends this one again.",
    413: "Send fewer events at once.",
    415: "Send Content-Type: application/json, without Content-Encoding.",
    421: "Ask by 127.0.0.1 or localhost, or give the service a secret: api.token_file.",
    422: "Correct the named fields; sender and service have to be of one version.",
    429: "Wait as long as Retry-After says; observe less, or raise api.rate_per_second.",
    503: "Try again in a moment; what is wrong is in the service's log and in pic status.",
}
"""What to do about an answer, where the error itself doesn't know better."""


class Refused(Exception):  # noqa: N818 - carried to the one place that answers
    """A request that is answered with an error.

    Args:
        status: the HTTP status.
        error: what goes into the body: its code, message, hint and details, none of which holds a value.
        retry_after: seconds until it makes sense to ask again.
    """

    def __init__(self, status: int, error: CloisterError, *, retry_after: float | None = None) -> None:
        super().__init__(error.code)
        self.status, self.error, self.retry_after = status, error, retry_after


def refusal(refused: Refused) -> Response:
    """The answer to a request that is refused."""
    error = refused.error
    headers = {}
    if refused.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after)))
    if refused.status == 401:
        headers["WWW-Authenticate"] = "PIC-HMAC-SHA256, Bearer"
    if refused.status == 415:
        headers["Accept"], headers["Accept-Encoding"] = _JSON, "identity"
    content = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint or _HINTS.get(refused.status, ""),
        "details": list(error.details[:_SHOWN_DETAILS]),
    }
    return JSONResponse(content, refused.status, headers)


def require_json(request: Request) -> None:
    """Refuse a body that isn't said to be plain JSON, before any of it is read.

    Raises:
        Refused: 415.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind.strip().lower() != _JSON or charset not in ("", "charset=utf-8") or encoding != "identity":
        raise Refused(
            415, ImmuneError("immune.telemetry_invalid", "A batch is JSON in UTF-8, not compressed.")
        )


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Read a body of bounded size in bounded time.

    Args:
        request: whose body.
        most: bytes; a longer one is refused at its announced length, or at the first byte too many.
        seconds: for all of it.

    Raises:
        Refused: 413 or 408.
        ClientDisconnect: the sender went away.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                if len(body) + len(part) > most:
                    raise _too_large(most)
                body += part
    except TimeoutError:
        raise Refused(
            408, ImmuneError("immune.telemetry_invalid", f"The batch took longer than {seconds:g} s to come.")
        ) from None
    return bytes(body)


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        ImmuneError(
            "immune.telemetry_invalid",
            f"The batch is larger than {most} bytes.",
            "Send fewer events at once.",
        ),
    )


__all__ = ["ClientDisconnect", "Refused", "read_body", "refusal", "require_json"]
