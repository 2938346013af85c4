"""What may be said to a service, in which order and how large, and in which words it refuses.

Rules kept here:

* A client begins with one kind of message. Only when that was answered may the other kind come.
* The services' kinds differ, so that who reaches the wrong one is refused at the first frame.
* Who is refused hears a word of a closed list, and where the service itself fails, the word for a refusal.
  Whoever hears one raises an error whose sentence is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from cloister.core.errors import CloisterError


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    QUERY = 3
    ANSWER = 4
    REFUSED = 5
    ASK = 6
    CHALLENGE = 7
    REQUEST = 8
    REPLY = 9


@dataclass(frozen=True)
class Turn:
    """One kind of message and what answers it.

    Attributes:
        said: the kind.
        most_said: its largest payload, in bytes.
        answered: the kind of its answer.
        most_answered: the answer's largest payload.
    """

    said: Kind
    most_said: int
    answered: Kind
    most_answered: int


@dataclass(frozen=True)
class Dialect:
    """How one kind of service and its clients speak.

    Attributes:
        first: what a client begins with.
        then: what may come after that, as often as it likes; who had it answered has shown that they mean it.
        nobody: the error for an address at which nobody listens.
        gone: the error for an other end that is gone, or speaks otherwise.
        too_slow: the error for one that is too slow.
        busy: the error that leaves a connection open: the same may be said again later.
        stopped: the error while a service ends.
        refused: the error for who hears no more than that; also what a fault of the service is told as.
        word_for: what a client hears of an error.
        error_for: what a client raises who hears it.
    """

    first: Turn
    then: Turn
    nobody: Callable[[str], CloisterError]
    gone: Callable[[], CloisterError]
    too_slow: Callable[[], CloisterError]
    busy: Callable[[], CloisterError]
    stopped: Callable[[], CloisterError]
    refused: Callable[[], CloisterError]
    word_for: Callable[[CloisterError], bytes]
    error_for: Callable[[bytes], CloisterError]

    @property
    def greeting(self) -> dict[Kind, int]:
        """What may come first, and how large."""
        return {self.first.said: self.first.most_said}

    @property
    def bounds(self) -> dict[Kind, int]:
        """What may come after that, and how large."""
        return {**self.greeting, self.then.said: self.then.most_said}

    def answer_to(self, kind: Kind) -> Kind:
        """The kind of the answer to what was said."""
        return (self.first if kind is self.first.said else self.then).answered
