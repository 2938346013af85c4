"""The real fork server with an inference's worker that lies, as its model's description names it."""

from __future__ import annotations

from collections.abc import Callable

from cloister.core.canonical import JSON
from cloister.enclave.inference import task
from cloister.enclave.inference.card import ModelDescription, card_of
from cloister.enclave.model_file import DEFAULT_MAX_BYTES
from cloister.enclave.sealed import server
from cloister.enclave.sealed.task import Answer, Payload

HONEST = task.InferenceTask
REAL = ModelDescription("logistic-regression", {}, 8)
COUNTS: dict[str, dict[str, JSON]] = {
    "counts-as-text": {"requests": "a record", "predictions": 1},
    "counts-with-more": {"requests": 0, "predictions": 0, "note": "a record"},
    "counts-missing": {},
    "counts-below-zero": {"requests": -1, "predictions": 0},
    "counts-true": {"requests": True, "predictions": 1},
    "counts-broken": {"requests": 1.5, "predictions": 2},
    "more-requests-than-were-carried": {"requests": 2, "predictions": 2},
    "more-rows-than-were-carried": {"requests": 1, "predictions": 2**40},
    "rows-without-requests": {"requests": 0, "predictions": 7},
    "requests-without-rows": {"requests": 1, "predictions": 0},
}
LIES = (
    *("other-card", "names-report-data", "no-key", "short-key", "loud-key", "longer-answer", "no-answer"),
    *("other-number", "answer-with-fields", *COUNTS),
)


class Lying(HONEST):
    """Serves a model, and lies once."""

    _lie = ""

    def handle(
        self, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
    ) -> Answer:
        if kind == "load":
            return self._loaded(fields, payload)
        if kind == "count" and self._lie in COUNTS:
            return Answer(COUNTS[self._lie])
        answer = super().handle(kind, fields, payload, aborted)
        key, sealed = str(answer.fields.get("public_key")), bytearray(answer.payload)
        match kind, self._lie:
            case "hello", "names-report-data":
                return Answer({**answer.fields, "report_data": "00" * 64})
            case "hello", "no-key":
                return Answer({"public_key": "z" * len(key)})
            case "hello", "short-key":
                return Answer({"public_key": key[:-2]})
            case "hello", "loud-key":
                return Answer({"public_key": key.upper()})
            case "query", "longer-answer":
                return Answer(payload=sealed + b"x")
            case "query", "no-answer":
                return Answer(payload=b"a record")
            case "query", "other-number":
                sealed[15] ^= 1
                return Answer(payload=sealed)
            case "query", "answer-with-fields":
                return Answer({"note": "a record"}, sealed)
        return answer

    def _loaded(self, fields: dict[str, JSON], payload: Payload) -> Answer:
        described = fields["description"]
        assert isinstance(described, dict)
        parameters = described["parameters"]
        assert isinstance(parameters, dict)
        self._lie = str(parameters.get("lie", ""))
        model = bytes(payload.whole(DEFAULT_MAX_BYTES))
        super().handle("load", {**fields, "description": REAL.as_json()}, _Held(model), bool)
        assert self._worker is not None
        self._worker._card = card_of(described, model)
        card = card_of(described, b"another file" if self._lie == "other-card" else model)
        return Answer({"card": card.as_json()})


class _Held(Payload):
    def __init__(self, content: bytes) -> None:
        self._content, self.size = content, len(content)

    def whole(self, most: int) -> bytearray:
        return bytearray(self._content)


if __name__ == "__main__":
    task.InferenceTask = Lying  # type: ignore[misc]
    server.main()
