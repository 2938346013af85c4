"""One client's way to a worker, as its operator gives it: a hello, then queries of that one session.

Rules kept here:

* A line has one session and a session one line. A query of another session goes nowhere, so that who saw a
  welcome pass can do nothing in its session.
* The first message that is refused ends the line; one that came at a bad time doesn't.
* When the line ends, so does its session.
"""

from __future__ import annotations

from collections.abc import Callable

from cloister.core.errors import CloisterError
from cloister.enclave.errors import SealedError
from cloister.enclave.inference.messages import MAX_HELLO_BYTES, MAX_QUERY_BYTES, Query
from cloister.enclave.inference.refusals import malformed, refused
from cloister.enclave.wire import Kind

Greet = Callable[[bytes], tuple[bytes, bytes]]
"""Takes a hello, and answers with the welcome and the session's id."""
Carry = Callable[[bytes, Query], bytes]
"""Takes a query, as it came and as it reads, and answers with the answer."""
Forget = Callable[[bytes], None]
"""Takes the id of a session that has ended; never raises."""


class Line:
    """An `Endpoint` for one client; made by `InferenceService.connect`. Not for several threads at once.

    Args:
        greet: has a session opened.
        carry: has a query answered.
        forget: has a session ended.
    """

    def __init__(self, greet: Greet, carry: Carry, forget: Forget) -> None:
        self._greet, self._carry, self._forget = greet, carry, forget
        self._session: bytes | None = None
        self._closed = False

    def answer(self, kind: Kind, message: bytes) -> bytes:
        """See `cloister.enclave.wire.Conversation.answer`."""
        return self.hello(message) if kind is Kind.HELLO else self.query(message)

    def hello(self, message: bytes) -> bytes:
        """Have a session opened; the welcome.

        Raises:
            InferenceError: ``inference.busy``; ``inference.malformed`` or ``inference.refused``, which end
                the line, as does a second hello.
            SealedError: the worker is dead.
            AttestationError: the machine gave no evidence.
            CollectError: the same.
        """
        self._require_open()
        try:
            if len(message) > MAX_HELLO_BYTES:
                raise malformed()
            if self._session is not None:
                raise refused()
            welcome, self._session = self._greet(message)
        except CloisterError as error:
            raise self._ended_by(error) from None
        return welcome

    def query(self, message: bytes) -> bytes:
        """Have a query answered; the answer.

        Raises:
            InferenceError: ``inference.busy``; ``inference.malformed`` or ``inference.refused``, which end
                the line.
            SealedError: the worker is dead.
        """
        self._require_open()
        try:
            if len(message) > MAX_QUERY_BYTES:
                raise malformed()
            query = Query.decode(message)
            if query.session != self._session:
                raise refused()
            return self._carry(message, query)
        except CloisterError as error:
            raise self._ended_by(error) from None

    def close(self) -> None:
        """End the session; call it as often as you like."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            self._forget(session)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def _require_open(self) -> None:
        if self._closed:
            raise refused()

    def _ended_by(self, error: CloisterError) -> CloisterError:
        if not isinstance(error, SealedError) and error.code != "inference.busy":
            self.close()
        return error
