"""``instrument("module:glob")``: have functions watched that one can't decorate.

Functions of a module that is loaded are replaced at once, those of another when it is imported, through a
finder on `sys.meta_path` that leaves finding and loading to the others; a module that is loaded again as
well. What a module only imported from elsewhere isn't its own and stays as it is; but where other loaded
modules have a name for a wrapped function (``from shop import price``), that name is wrapped too. What holds
a function otherwise, as a web framework's routes do, keeps the bare one: decorate such a function, or name it
before its module is imported. `Instrumented.undo` puts everything back that is still there.

An object of a module is judged by its type: asking it anything else would run the application's code.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial, partialmethod
from importlib.machinery import ModuleSpec
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING, Final, TypeGuard

from cloister.immune.errors import ImmuneError
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.monitor import wrap

if TYPE_CHECKING:
    from importlib.abc import Loader

_TARGET: Final = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<glob>[\w*?\[\]!.-]+)")
_DESCRIPTORS: Final = (classmethod, staticmethod, property, cached_property, partial, partialmethod)

Owner = ModuleType | type


class Instrumented:
    """What one `instrument` did, and how it is taken back.

    Attributes:
        target: as it was given.
    """

    def __init__(self, target: str, module: str, glob: str) -> None:
        self.target, self.module, self._glob = target, module, glob
        self._replaced: list[tuple[Owner, str, object, object]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """What was wrapped, as ``module:qualname``; empty while the module isn't imported."""
        return tuple(
            f"{self.module}:{name if isinstance(owner, ModuleType) else f'{owner.__qualname__}.{name}'}"
            for owner, name, _, _ in self._replaced
            if not isinstance(owner, ModuleType) or owner.__name__ == self.module
        )

    def apply(self, module: ModuleType) -> int:
        """Wrap what fits in a loaded module; returns how much fitted, what was wrapped before included."""
        found = 0
        elsewhere: dict[int, tuple[object, object]] = {}
        for owner, name, value in list(_candidates(module, self._glob)):
            found += 1
            wrapped = wrap(value)
            if wrapped is not value:
                setattr(owner, name, wrapped)
                self._replaced.append((owner, name, value, wrapped))
                if owner is module:
                    elsewhere[id(value)] = value, wrapped
        for holder, name, value in _names_for(elsewhere, module):
            wrapped = elsewhere[id(value)][1]
            setattr(holder, name, wrapped)
            self._replaced.append((holder, name, value, wrapped))
        return found

    def undo(self) -> None:
        """Put back what was there; what others have replaced since stays theirs."""
        _FINDER.forget(self)
        while self._replaced:
            owner, name, before, wrapped = self._replaced[-1]
            if vars(owner).get(name) is wrapped:
                setattr(owner, name, before)
            # Not before: an interrupt would leave the wrapper where it is.
            self._replaced.pop()


def instrument(target: str) -> Instrumented:
    """Have functions watched by name.

    Args:
        target: ``module:glob``: ``shop.payments:*`` fits the module's functions, ``shop.payments:Till.*`` the
            methods of a class, ``shop.payments:Till.pay`` one.

    Returns:
        What was done, with ``undo``.

    Raises:
        ImmuneError: ``immune.target_unknown``: it isn't of this form, there is no such module, or nothing of
            a loaded module fits. Of a module that isn't loaded yet only its existence is known; one in which
            nothing fits is counted in `FAULTS` when it is imported.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        raise _unknown(f"{target!r} isn't of the form module:glob.")
    done = Instrumented(target, match["module"], match["glob"])
    loaded = sys.modules.get(done.module)
    if loaded is None:
        if not _exists(done.module):
            raise _unknown(f"There is no module {done.module}.")
    elif not done.apply(loaded):
        raise _unknown(f"Nothing in {done.module} fits {match['glob']!r}.")
    _FINDER.expect(done)
    return done


def _unknown(message: str) -> ImmuneError:
    hint = "Name it as module:qualname, of a Python function; * stands for any name."
    return ImmuneError("immune.target_unknown", message, hint)


def _exists(module: str) -> bool:
    # `find_spec` imports the parents of a module, which may fail in any way.
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:
        return False


def _candidates(module: ModuleType, glob: str) -> Iterator[tuple[Owner, str, object]]:
    for name, value in list(vars(module).items()):
        if _is_class(value) and value.__module__ == module.__name__ and "." in glob:
            yield from _methods(value, name, glob)
        elif fnmatchcase(name, glob) and "." not in glob and _is_own(value, module):
            yield module, name, value


def _methods(owner: type, path: str, glob: str) -> Iterator[tuple[Owner, str, object]]:
    for name, value in list(vars(owner).items()):
        full = f"{path}.{name}"
        if _is_class(value):
            if value.__qualname__.startswith(f"{owner.__qualname__}."):
                yield from _methods(value, full, glob)
        elif full.count(".") == glob.count(".") and fnmatchcase(full, glob) and _is_wrappable(value):
            yield from () if _is_special(name) and name not in glob else ((owner, name, value),)


def _is_special(name: str) -> bool:
    # Special methods are the language's own dealings with an object; they are wrapped where they are named.
    return name.startswith("__") and name.endswith("__")


def _is_own(value: object, module: ModuleType) -> bool:
    return _is_wrappable(value) and getattr(value, "__module__", None) == module.__name__


def _is_class(value: object) -> TypeGuard[type]:
    # Not isinstance(): that asks an object that isn't one for its __class__.
    return issubclass(type(value), type)


def _is_wrappable(value: object) -> bool:
    kind = type(value)
    if issubclass(kind, _DESCRIPTORS):
        return True
    binds = hasattr(kind, "__get__") and not hasattr(kind, "__set__") and not issubclass(kind, type)
    if not (binds or issubclass(kind, BuiltinFunctionType)):
        return False
    try:
        return hasattr(value, "__qualname__")
    except Exception as fault:
        FAULTS.note("instrument", fault)
        return False


def _names_for(values: Mapping[int, object], own: ModuleType) -> Iterator[tuple[ModuleType, str, object]]:
    """The names that other loaded modules have for these objects, by their ids."""
    if not values:
        return
    for module in list(sys.modules.values()):
        if module is own or not issubclass(type(module), ModuleType):
            continue
        for name, value in list(vars(module).items()):
            if id(value) in values:
                yield module, name, value


class _Finder:
    """Has a module's functions wrapped right after the module has run."""

    def __init__(self) -> None:
        self._expected: dict[str, list[Instrumented]] = {}
        self._finding: set[str] = set()

    def expect(self, one: Instrumented) -> None:
        self._expected.setdefault(one.module, []).append(one)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self, one: Instrumented) -> None:
        waiting = self._expected.get(one.module, [])
        if one in waiting:
            waiting.remove(one)
        if not waiting:
            self._expected.pop(one.module, None)
        if not self._expected and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._expected or fullname in self._finding:
            return None
        self._finding.add(fullname)
        try:
            spec = _found_by_others(self, fullname, path, target)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None:
            _run_afterwards(spec.loader, spec, self._loaded)
        return spec

    def _loaded(self, module: ModuleType) -> None:
        for one in list(self._expected.get(module.__name__, ())):
            try:
                if not one.apply(module):
                    FAULTS.note("instrument", _unknown(f"Nothing in {module.__name__} fits."))
            except Exception as fault:
                FAULTS.note("instrument", fault)


def _found_by_others(
    own: _Finder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if finder is not own and find is not None:
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                return spec
    return None


def _run_afterwards(loader: Loader, spec: ModuleSpec, then: Callable[[ModuleType], None]) -> None:
    """Have something run after this spec's module has; the loader itself stays what the module sees."""
    run = getattr(loader, "exec_module", None)
    if run is None or isinstance(loader, type):
        FAULTS.note("instrument", TypeError(f"the loader of {spec.name} can't be followed"))
        return

    def exec_module(module: ModuleType) -> None:
        # Gone first: a reload, or another module of a shared loader, finds the loader as it was.
        vars(loader).pop("exec_module", None)
        run(module)
        then(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


_FINDER: Final = _Finder()
