"""The source of a wrapper with exactly a function's parameters, and its compiled code.

Only the shape of a signature enters the source: names of parameters, each checked to be an identifier.
Defaults and annotations are objects and are set on the wrapper by reference.
"""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType
from typing import Final

_FREE: Final = ("function", "gate", "slow", "left", "errors", "holding", "every_error")

# Left is counted down first, so that one integer both counts and chooses. The try costs nothing until
# something is raised. Nothing is looked up among globals: they are the application's.
_CHECKED: Final = """\
def factory({free}):
    def wrapper({parameters}):
        {declared}
        {counted} -= 1
        if {counted} > 0{condition}:
            try:
                return {function}({passed})
            except {every_error}:
                {failed} += 1
                raise
        return {slow}({gate}, {positional}, {named})
"""

# A coroutine or generator is handed through as it is, so that nothing stands between it and who drives it.
_PASSED: Final = """\
def factory({free}):
    def wrapper({parameters}):
        {declared}
        {counted} -= 1
        if {counted} > 0{condition}:
            return {function}({passed})
        return {slow}({gate}, {positional}, {named})
"""

# For a call that a shortcut found unusual: it isn't counted here, but where it is judged.
_COMPARED: Final = """\
def factory({free}):
    def wrapper({parameters}):
        return {slow}({gate}, {positional}, {named})
"""


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a function, without defaults and annotations.

    Attributes:
        positional: names of those that may be given by position.
        positional_only: how many of these only so.
        keyword_only: names of those that are given by name.
        rest: name of ``*rest``; empty without.
        named: name of ``**named``; empty without.
    """

    positional: tuple[str, ...]
    positional_only: int
    keyword_only: tuple[str, ...]
    rest: str
    named: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of all parameters."""
        rest = (self.rest,) if self.rest else ()
        named = (self.named,) if self.named else ()
        return (*self.positional, *self.keyword_only, *rest, *named)


ANYTHING: Final = Signature((), 0, (), "args", "kwargs")
"""Of a callable whose parameters aren't known."""


def signature_of(code: CodeType) -> Signature:
    """The parameters of a function's code; `ANYTHING` where a name is none that source could hold."""
    names = list(code.co_varnames)
    plain, only = code.co_argcount, code.co_kwonlyargcount
    after = names[plain + only :]
    rest = after.pop(0) if code.co_flags & CO_VARARGS else ""
    named = after.pop(0) if code.co_flags & CO_VARKEYWORDS else ""
    found = Signature(
        tuple(names[:plain]), code.co_posonlyargcount, tuple(names[plain : plain + only]), rest, named
    )
    return found if all(_is_name(one) for one in found.names) else ANYTHING


def _is_name(name: str) -> bool:
    # The compiler would normalise a name that isn't in form NFKC, to another one.
    return name.isidentifier() and not keyword.iskeyword(name) and unicodedata.is_normalized("NFKC", name)


@lru_cache(maxsize=1024)
def wrapper_code(
    signature: Signature, *, counts_errors: bool, locked: bool, shortened: bool
) -> tuple[CodeType, tuple[str, ...]]:
    """The code of a wrapper, and what each of its free variables stands for, in their order.

    Args:
        signature: of the function.
        counts_errors: whether the wrapper sees what a call raises.
        locked: whether a flag of its own sends calls to the slow path, for Python without a global lock.
        shortened: whether it counts with `Counter` objects, which its shortcut in C changes too, in place of
            cells.
    """
    own = _own_names(signature)
    left, errors = own["left"], own["errors"]
    source = (_CHECKED if counts_errors else _PASSED).format(
        declared="" if shortened else f"nonlocal {left}, {errors}" if counts_errors else f"nonlocal {left}",
        counted=f"{left}.cell_contents" if shortened else left,
        failed=f"{errors}.cell_contents" if shortened else errors,
        free=", ".join(own.values()),
        parameters=_parameters(signature),
        condition=f" and not {own['holding']}" if locked else "",
        passed=_passed(signature),
        positional=_positional(signature),
        named=_named(signature),
        **{role: own[role] for role in _FREE if role not in {"holding", "left", "errors"}},
    )
    return _compiled(source, own)


@lru_cache(maxsize=1024)
def compared_code(signature: Signature) -> tuple[CodeType, tuple[str, ...]]:
    """The code of a wrapper that takes the slow path with every call; the rest as of `wrapper_code`."""
    own = _own_names(signature)
    source = _COMPARED.format(
        free=", ".join(own.values()),
        parameters=_parameters(signature),
        slow=own["slow"],
        gate=own["gate"],
        positional=_positional(signature),
        named=_named(signature),
    )
    return _compiled(source, own)


def _own_names(signature: Signature) -> dict[str, str]:
    taken = set(signature.names)
    return {role: next(name for name in _variants(role) if name not in taken) for role in _FREE}


def _compiled(source: str, own: dict[str, str]) -> tuple[CodeType, tuple[str, ...]]:
    code = _inner(_inner(compile(source, "<immune wrapper>", "exec")))
    roles = {name: role for role, name in own.items()}
    return code, tuple(roles[name] for name in code.co_freevars)


def _variants(role: str) -> Iterator[str]:
    name = f"_{role}"
    while True:
        yield name
        name += "_"


def _inner(code: CodeType) -> CodeType:
    return next(one for one in code.co_consts if isinstance(one, CodeType))


def _parameters(signature: Signature) -> str:
    parts = list(signature.positional)
    if signature.positional_only:
        parts.insert(signature.positional_only, "/")
    if signature.rest:
        parts.append(f"*{signature.rest}")
    elif signature.keyword_only:
        parts.append("*")
    parts += signature.keyword_only
    if signature.named:
        parts.append(f"**{signature.named}")
    return ", ".join(parts)


def _passed(signature: Signature) -> str:
    parts = list(signature.positional)
    if signature.rest:
        parts.append(f"*{signature.rest}")
    parts += [f"{name}={name}" for name in signature.keyword_only]
    if signature.named:
        parts.append(f"**{signature.named}")
    return ", ".join(parts)


def _positional(signature: Signature) -> str:
    if not signature.positional:
        return signature.rest or "()"
    rest = f" *{signature.rest}," if signature.rest else ""
    return f"({', '.join(signature.positional)},{rest})"


def _named(signature: Signature) -> str:
    parts = [f"{name!r}: {name}" for name in signature.keyword_only]
    if not parts:
        return signature.named or "{}"
    return "{" + ", ".join([*parts, *([f"**{signature.named}"] if signature.named else [])]) + "}"
