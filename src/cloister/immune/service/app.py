"""The brain's HTTP interface.

| path | answers |
|---|---|
| ``POST /api/v1/telemetry`` | 202 with how many events were taken; see `cloister.immune.service.intake` |
| ``GET /health`` | 200 as long as the process answers; says nothing of the store |
| ``GET /ready`` | 200, or 503 where the store can't be used |
| ``GET /metrics`` | the text format of Prometheus |
| ``GET /status`` | JSON: this service and the brain behind it |
| ``GET /version`` | the version of cloister |

Rules this module keeps:

1. ``/metrics`` and ``/status`` name functions: where there is a secret they take the reading token (401).
2. Without a secret the service is there for this machine only, and a request that names another host is
   refused (421): a page in a browser could otherwise reach it under a name of its own (DNS rebinding).
3. What fails inside is answered without a word of it, and the process goes on.
4. Every answer that isn't a success has the same JSON, a path that there isn't (404) and a method that a path
   doesn't have (405) included.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloister.immune.errors import ImmuneError
from cloister.immune.service.intake import BODY_SECONDS, Intake
from cloister.immune.service.limiter import EventLimiter
from cloister.immune.service.loopback import is_loopback
from cloister.immune.service.metrics import CONTENT_TYPE, ServiceMetrics
from cloister.immune.service.requests import Refused, refusal
from cloister.immune.service.signing import NonceBook, may_read

if TYPE_CHECKING:
    from cloister.immune.service.brain_port import BrainPort
    from cloister.immune.settings import ApiSettings

TELEMETRY_PATH: Final = "/api/v1/telemetry"
_VERSION: Final = version("cloister")

_Answer = TypeVar("_Answer")
_Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def create_app(
    brain: BrainPort,
    settings: ApiSettings,
    *,
    secret: bytes | None = None,
    open_to_network: bool = False,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
    body_seconds: float = BODY_SECONDS,
) -> Starlette:
    """Build the service around a brain.

    Args:
        brain: what takes the events in.
        settings: limits.
        secret: what batches are signed with; None asks for no signature.
        open_to_network: whether hosts other than this one may be named; only behind certificates.
        clock: monotonic seconds.
        wall_clock: Unix time, seconds.
        body_seconds: that a batch may take to come.

    Returns:
        An ASGI application for one process and one event loop: limits and nonces are in its memory.
    """
    return _Service(brain, settings, secret, open_to_network, clock, wall_clock, body_seconds).app


class _Service:
    def __init__(
        self,
        brain: BrainPort,
        settings: ApiSettings,
        secret: bytes | None,
        open_to_network: bool,  # noqa: FBT001
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        body_seconds: float,
    ) -> None:
        self._brain, self._settings, self._secret = brain, settings, secret
        self._any_host = open_to_network or secret is not None
        self._clock, self._began, self._started_at = clock, clock(), wall_clock()
        self._metrics = ServiceMetrics(clock)
        self._turn = anyio.CapacityLimiter(1)
        self._intake = Intake(
            brain,
            EventLimiter(settings.rate_per_second, settings.burst, settings.function_rate, clock),
            self._metrics,
            secret=secret,
            nonces=NonceBook(wall_clock()),
            wall_clock=wall_clock,
            max_events=settings.max_batch,
            max_bytes=settings.max_body_bytes,
            brain_turn=self._turn,
            body_seconds=body_seconds,
        )
        routes = [
            Route(TELEMETRY_PATH, self._guarded(self._telemetry), methods=["POST"]),
            Route("/health", self._guarded(self._health), methods=["GET"]),
            Route("/ready", self._guarded(self._ready), methods=["GET"]),
            Route("/status", self._guarded(self._status), methods=["GET"]),
            Route("/version", self._guarded(self._version), methods=["GET"]),
        ]
        if settings.metrics_enabled:
            routes.append(Route("/metrics", self._guarded(self._page_of_metrics), methods=["GET"]))
        self.app = Starlette(routes=routes, exception_handlers={404: _no_path, 405: _no_method})
        # Would build an address from what the request calls this host.
        self.app.router.redirect_slashes = False

    def _guarded(self, endpoint: _Endpoint) -> _Endpoint:
        async def answer(request: Request) -> Response:
            try:
                self._require_own_name(request)
                response = await endpoint(request)
            except Refused as refused:
                response = refusal(refused)
            except ClientDisconnect:
                response = Response(status_code=400)
            if request.scope["path"] == TELEMETRY_PATH:
                self._metrics.answered(response.status_code)
            return _marked(response)

        return answer

    async def _telemetry(self, request: Request) -> Response:
        taken = await self._intake.take(request)
        return JSONResponse({"taken": taken.taken, "limited": taken.limited}, 202)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _: Request) -> Response:
        if await self._ask(self._brain.ready):
            return JSONResponse({"status": "ready"})
        raise _unusable()

    async def _page_of_metrics(self, request: Request) -> Response:
        self._require_reader(request)
        metrics = await self._ask(self._brain.metrics)
        return Response(self._metrics.render(metrics), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, request: Request) -> Response:
        self._require_reader(request)
        brain = dict(await self._ask(self._brain.status))
        service = {
            "version": _VERSION,
            "started_at": self._started_at,
            "uptime_seconds": self._clock() - self._began,
            "events": self._metrics.event_counts,
            "event_rate": self._metrics.event_rate(),
            "limits": {
                "rate_per_second": self._settings.rate_per_second,
                "burst": self._settings.burst,
                "function_rate": self._settings.function_rate,
                "max_batch": self._settings.max_batch,
                "max_body_bytes": self._settings.max_body_bytes,
            },
            "signed": self._secret is not None,
        }
        return JSONResponse({"service": service, "brain": brain})

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": _VERSION})

    async def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        try:
            return await anyio.to_thread.run_sync(question, limiter=self._turn)
        except Exception as error:
            raise _unusable() from error

    def _require_reader(self, request: Request) -> None:
        if self._secret is not None and not may_read(self._secret, request.headers.get("authorization", "")):
            raise Refused(
                401, ImmuneError("immune.telemetry_unproven", "Reading takes this service's reading token.")
            )

    def _require_own_name(self, request: Request) -> None:
        if self._any_host or _names_this_machine(request.headers.get("host", "")):
            return
        raise Refused(
            421, ImmuneError("immune.telemetry_unproven", "This service is there for its own machine only.")
        )


def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    # Who names none is no browser.
    return not host or (name is not None and is_loopback(name))


def _marked(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def _no_path(_request: Request, _error: Exception) -> Response:
    return _marked(refusal(Refused(404, ImmuneError("immune.request_unknown", "There is no such path."))))


async def _no_method(_request: Request, error: Exception) -> Response:
    response = refusal(
        Refused(405, ImmuneError("immune.request_unknown", "This path doesn't have this method."))
    )
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return _marked(response)


def _unusable() -> Refused:
    return Refused(
        503, ImmuneError("immune.state_unusable", "The brain's store can't be used."), retry_after=5.0
    )
