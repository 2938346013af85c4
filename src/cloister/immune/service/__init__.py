"""The brain as a service, and the sender that feeds it. Needs the extra ``immune``; the sender alone doesn't.

`serve` runs a brain behind HTTP; `open_sender` makes what sends to it, and `read_status` asks it.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.immune.service.app import create_app
    from cloister.immune.service.brain_port import BrainMetrics, BrainPort, WatchdogState
    from cloister.immune.service.client import open_sender, read_status
    from cloister.immune.service.encoding import encode_batch
    from cloister.immune.service.http_post import HttpPost
    from cloister.immune.service.limiter import EventLimiter, TokenBucket
    from cloister.immune.service.otlp import OtlpExport, open_otlp, otlp_sender
    from cloister.immune.service.sender import Sender, SentCounts
    from cloister.immune.service.server import serve, serving
    from cloister.immune.service.shared_secret import read_secret, write_secret
    from cloister.immune.service.signing import reading_token
    from cloister.immune.service.telemetry_form import BatchForm, TelemetryForm, read_batch
    from cloister.immune.service.tls import client_context, server_context

_NAMES = {
    "app": ("create_app",),
    "brain_port": ("BrainMetrics", "BrainPort", "WatchdogState"),
    "client": ("open_sender", "read_status"),
    "encoding": ("encode_batch",),
    "http_post": ("HttpPost",),
    "limiter": ("EventLimiter", "TokenBucket"),
    "otlp": ("OtlpExport", "open_otlp", "otlp_sender"),
    "sender": ("Sender", "SentCounts"),
    "server": ("serve", "serving"),
    "shared_secret": ("read_secret", "write_secret"),
    "signing": ("reading_token",),
    "telemetry_form": ("BatchForm", "TelemetryForm", "read_batch"),
    "tls": ("client_context", "server_context"),
}

__all__ = [
    "BatchForm",
    "BrainMetrics",
    "BrainPort",
    "EventLimiter",
    "HttpPost",
    "OtlpExport",
    "Sender",
    "SentCounts",
    "TelemetryForm",
    "TokenBucket",
    "WatchdogState",
    "client_context",
    "create_app",
    "encode_batch",
    "open_otlp",
    "open_sender",
    "otlp_sender",
    "read_batch",
    "read_secret",
    "read_status",
    "reading_token",
    "serve",
    "server_context",
    "serving",
    "write_secret",
]

__getattr__ = on_first_use(__name__, {name: home for home, names in _NAMES.items() for name in names})
