"""What a node counts of an inference by itself, and holds its worker's counts against.

A node can't look into a query, so how many rows were in it, and whether the model accepted them, is the
worker's word. Rules kept here:

* The worker says two whole numbers and nothing else. Everything else in a bill the node has counted itself.
* Both have to be possible: no more requests answered than queries that the node carried, at least one row in
  each, no more rows than queries of those sizes hold. A worker that says otherwise is not believed anything.

What is left to a hostile worker is to choose two numbers within these bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.core.canonical import JSON
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.frames import protocol_error

MAX_COUNT = 2**53 - 1


@dataclass(frozen=True)
class Bill:
    """What was used in a while.

    Attributes:
        sessions: opened.
        requests: answered with a prediction.
        predictions: rows in them.
        refused: requests that were not.
    """

    sessions: int
    requests: int
    predictions: int
    refused: int

    def as_json(self) -> dict[str, JSON]:
        """The counts as plain JSON values."""
        return {
            "sessions": self.sessions,
            "requests": self.requests,
            "predictions": self.predictions,
            "refused": self.refused,
        }


@dataclass
class Tally:
    """What the node saw pass since the last bill.

    Attributes:
        sessions: welcomes it gave.
        answered: queries to which the worker had an answer, of whatever content.
        rows: the most rows that these queries can have held.
        refused: queries of an open session that the worker refused.
    """

    sessions: int = 0
    answered: int = 0
    rows: int = 0
    refused: int = 0

    def billed(self, said: dict[str, JSON]) -> Bill:
        """The bill, with what the worker says.

        Args:
            said: the worker's answer.

        Raises:
            SealedError: ``sealed.protocol`` where it says something else than two numbers that can be true.
        """
        requests, predictions = said.get("requests"), said.get("predictions")
        if said.keys() != {"requests", "predictions"} or type(requests) is not int:
            raise _impossible()
        if type(predictions) is not int or not 0 <= requests <= self.answered:
            raise _impossible()
        if not requests <= predictions <= (min(self.rows, MAX_COUNT) if requests else 0):
            raise _impossible()
        return Bill(self.sessions, requests, predictions, self.refused + self.answered - requests)


def _impossible() -> SealedError:
    return protocol_error("a worker states counts that can't be true")
