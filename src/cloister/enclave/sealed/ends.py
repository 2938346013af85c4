"""What a worker's end, or that there is none to be had, means to whoever asked for it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cloister.core.logging import get_logger, log_is_kept
from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.sealed.claims import SealViolation
from cloister.enclave.sealed.control import WorkerEnded

ViolationSink = Callable[[SealViolation], None]


def log_violation(violation: SealViolation) -> None:
    """Put a violation into the log of whoever runs this process: for workers that belong to no job.

    Where it keeps no log, standard error is where whoever runs it looks.
    """
    if not log_is_kept():
        print(f"cloister: {violation.sentence} at {violation.at}", file=sys.stderr)
    get_logger("enclave").error(
        "sealed.violation", worker=violation.worker, call=violation.call, word=violation.word, at=violation.at
    )


def error_of_end(ended: WorkerEnded, violation: SealViolation | None) -> SealedError:
    """The error that a worker's end stands for."""
    match ended.cause:
        case "violation":
            details = [] if violation is None else [violation.sentence]
            return SealBroken(
                "sealed.violation",
                f"A sealed worker made a call that it may not make ({ended.call}) and was killed.",
                "Nothing of it is used. Find out what in the model or data led to it before you go on.",
                details=details,
            )
        case "cpu_limit":
            return SealedError(
                "sealed.cpu_limit", "A sealed worker used up its processor time.", "Give it more."
            )
        case "start_timeout":
            return SealedError("sealed.timeout", "A sealed worker was not sealed in its time.")
        case "not_forked":
            return unavailable(f"none could be forked ({ended.reason})")
        case _:
            # Not how: with what status or signal it ends is the worker's to choose.
            return SealedError("sealed.died", "A sealed worker ended by itself, or was killed from outside.")


def unavailable(why: str) -> SealedError:
    """The error where no sealed worker can be had."""
    return SealedError(
        "sealed.unavailable",
        f"Sealed workers cannot be had here: {why}.",
        "They need Linux, libseccomp 2.5 or newer and the extra cloister[sealed]; and processes, memory and "
        "open files for each.",
    )
