"""One sealed worker as the node holds it: requests go in, answers come out, at the end it is destroyed."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON
from cloister.core.closing import Closing
from cloister.core.errors import CloisterError, error_of
from cloister.enclave.errors import SealedError
from cloister.enclave.keyrelease.hpke import PUBLIC_BYTES
from cloister.enclave.sealed.claims import SealClaims
from cloister.enclave.sealed.destruction import DestructionRecord, Held, Wiped, record_of
from cloister.enclave.sealed.frames import ERROR, Frame, NodeEnd, protocol_error
from cloister.health import errors as _health
from cloister.privacy import errors as _privacy

if TYPE_CHECKING:
    from cloister.enclave.sealed.host import SealedHost

_ROOMS: Final = ("privacy.", "model.", "health.", "inference.", "enclave.", "package.")
_ITS_OWN: Final = frozenset(
    {"sealed.dataset", "sealed.memory_limit", "sealed.protocol", "sealed.task_failed"}
)
"""What a worker may answer with: codes of these rooms, whose modules are loaded here, and these of its own.
What the kernel or the node found out, such as a violation, isn't for it to say."""
_PUBLIC_KEY: Final = re.compile(f"[0-9a-f]{{{2 * PUBLIC_BYTES}}}")
CLOSE_SECONDS: Final = 10.0
"""How long a worker may take to wipe its buffers when it is told to end."""
_LOADED: Final = (_health, _privacy)


def _never() -> bool:
    return False


class SealedWorker(Closing):
    """A worker behind its seal. Not for more than one thread at a time.

    Args:
        host: whose it is.
        number: its number there.
        end: the node's ends of its pipes.
        claims: what holds it.
        seconds: how long any request may take.
    """

    def __init__(
        self, host: SealedHost, number: int, end: NodeEnd, claims: SealClaims, seconds: float
    ) -> None:
        self._host, self.number, self._end, self.claims = host, number, end, claims
        self._seconds, self._seq = seconds, 0
        self._record: DestructionRecord | None = None
        self.public_key = b""
        self.held = Held()
        """What was handed to it, which whoever hands something over says here."""

    @property
    def alive(self) -> bool:
        """Whether it has not been ended, as far as is known here."""
        return self._record is None

    def begin(self, task: str) -> None:
        """Name the task; the worker answers with its public key, made behind the seal."""
        answer = self.request("begin", {"task": task})
        public = answer.fields.get("public_key")
        if not isinstance(public, str) or not _PUBLIC_KEY.fullmatch(public):
            raise self._killed(protocol_error("the worker has no public key"))
        self.public_key = bytes.fromhex(public)

    def request(
        self,
        kind: str,
        fields: dict[str, JSON] | None = None,
        payload: bytes | bytearray | memoryview = b"",
        *,
        most: int = 0,
        abort: Callable[[], bool] = _never,
    ) -> Frame:
        """Ask for something and wait for the answer.

        Args:
            kind: what is asked.
            fields: the request's header.
            payload: its payload.
            most: the largest payload that an answer may have.
            abort: asked about fifty times a second while the worker is at it; the first True is passed on.

        Returns:
            The answer. What is in it was said by the worker, and is for the caller to judge.

        Raises:
            SealBroken: ``sealed.violation``.
            SealedError: it died, was late or out of memory, or sent something else than an answer. Except
                for a full memory, it is dead then.
            CloisterError: the task refused; with the code's meaning alone, as only the code comes out.
        """
        if self._record is not None:
            raise SealedError("sealed.closed", "A sealed worker is asked after its end.")
        self._seq += 1
        seq, asked = self._seq, False
        deadline = time.monotonic() + self._seconds

        def look_up() -> None:
            nonlocal asked
            self._host.require_alive(self.number)
            if not asked and abort():
                asked = True
                self._end.send(Frame("abort", seq), deadline, watch)

        def watch() -> None:
            self._host.require_alive(self.number)

        try:
            self._end.send(Frame(kind, seq, fields or {}, payload), deadline, watch)
            answer = self._end.receive(most, deadline, look_up)
        except TimeoutError:
            raise self._killed(
                SealedError("sealed.timeout", "A sealed worker did not answer in its time and was killed.")
            ) from None
        except (EOFError, OSError):
            raise self._killed(self._fate()) from None
        except SealedError as error:
            raise self._killed(error) from None
        if answer.seq != seq or answer.kind not in ("done", ERROR):
            raise self._killed(protocol_error("an answer is of no request"))
        if answer.kind == ERROR:
            raise self._refused(answer)
        return answer

    def close(self) -> DestructionRecord:
        """Let it wipe its buffers, kill it, wait for it, and look whether anything is left.

        Returns:
            What was done and seen; the same one again when called again.
        """
        if self._record is not None:
            return self._record
        wiped = None
        seconds, self._seconds = self._seconds, min(self._seconds, CLOSE_SECONDS)
        try:
            wiped = self._wiped()
        finally:  # whatever it says to it, and whatever comes in between, it ends
            self._seconds = seconds
            record = self._ended(wiped)
        return record

    def kill(self) -> DestructionRecord:
        """End it at once; nothing is wiped by itself then."""
        return self._record or self._ended(None)

    def _wiped(self) -> Wiped | None:
        try:
            answer = self.request("close")
        except CloisterError:
            return None
        buffers, count = answer.fields.get("buffers"), answer.fields.get("bytes")
        return Wiped(buffers, count) if type(buffers) is int and type(count) is int else None

    def _ended(self, wiped: Wiped | None) -> DestructionRecord:
        if self._record is None:
            ended = self._host.end_worker(self.number, look=True)
            self._end.close()
            own = (hashlib.sha256(self.public_key).hexdigest(),) if self.public_key else ()
            held = replace(self.held, artifacts=(*own, *self.held.artifacts))
            self._record = record_of(self.number, held, self.claims, ended, wiped)
        return self._record

    def _fate(self) -> SealedError:
        """Why its pipe has closed."""
        self._host.await_end(self.number)
        try:
            self._host.require_alive(self.number)
        except SealedError as error:
            return error
        return SealedError("sealed.died", "A sealed worker closed its pipe.")

    def _killed(self, error: SealedError) -> SealedError:
        self._ended(None)
        return error

    def _refused(self, answer: Frame) -> Exception:
        code = answer.fields.get("code")
        may_say = isinstance(code, str) and (code.startswith(_ROOMS) or code in _ITS_OWN)
        error = error_of(code) if may_say and isinstance(code, str) else None
        if error is None or set(answer.fields) != {"code"} or len(answer.payload):
            return self._killed(protocol_error("an error came without a known code"))
        return error
