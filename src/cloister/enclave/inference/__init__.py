"""Secure inference: a client verifies an enclave, seals its input to it, and alone reads the prediction.

The client's side is `open_session`; the operator's is `InferenceService`, which carries what it can't read to
an `InferenceWorker` in a sealed one. numpy and torch are loaded where they are first needed.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.enclave.inference.card import ModelCard, ModelDescription
    from cloister.enclave.inference.client import Endpoint, InferenceSession, open_session
    from cloister.enclave.inference.endpoint import SocketEndpoint
    from cloister.enclave.inference.line import Line
    from cloister.enclave.inference.listener import InferenceListener
    from cloister.enclave.inference.messages import Answer, Hello, Query, Welcome
    from cloister.enclave.inference.metering import Metering
    from cloister.enclave.inference.service import InferenceService
    from cloister.enclave.inference.tally import Bill, Tally
    from cloister.enclave.inference.worker import Counts, InferenceWorker

_HOMES = {
    "Answer": "messages",
    "Bill": "tally",
    "Counts": "worker",
    "Endpoint": "client",
    "Hello": "messages",
    "InferenceListener": "listener",
    "InferenceService": "service",
    "InferenceSession": "client",
    "InferenceWorker": "worker",
    "Line": "line",
    "Metering": "metering",
    "ModelCard": "card",
    "ModelDescription": "card",
    "Query": "messages",
    "SocketEndpoint": "endpoint",
    "Tally": "tally",
    "Welcome": "messages",
    "open_session": "client",
}

__all__ = [
    "Answer",
    "Bill",
    "Counts",
    "Endpoint",
    "Hello",
    "InferenceListener",
    "InferenceService",
    "InferenceSession",
    "InferenceWorker",
    "Line",
    "Metering",
    "ModelCard",
    "ModelDescription",
    "Query",
    "SocketEndpoint",
    "Tally",
    "Welcome",
    "open_session",
]

__getattr__ = on_first_use(__name__, _HOMES)
