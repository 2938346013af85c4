"""The compiled core is the pure package, only quicker; which one is used is said.

Where the core isn't compiled its own tests are skipped by name. With ``EXPECTED_CORE=compiled``, which
`tools/test-core` sets, that is a failure.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloister
from cloister.immune import core, monitor
from cloister.immune.compiled_core import (
    LIBRARY,
    MODULES,
    PURE,
    SHORTCUT,
    digest_of_sources,
    shortcut,
    source_of,
)
from cloister.immune.detection import TailDetector
from cloister.immune.wrapping.build import build
from tests.immune.detection.streams import SHAPES, stream
from tests.immune.wrapping.watching import TENTH, watching

SOURCE = Path(cloister.__file__).parents[1]
ROOT = Path(__file__).resolve().parents[2]
needs_compiled = pytest.mark.skipif(
    core().kind != "compiled", reason=f"the compiled core is not used here: {core().why}"
)


def run(program: str, *, pure: bool = False, path: Path = SOURCE) -> str:
    """What a new interpreter prints."""
    environment = {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PATH": os.environ["PATH"]}
    if pure:
        environment[PURE] = "1"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout.strip()


def scores_of(seed: int, calls: int) -> str:
    """A hash of every score of some streams, bit by bit, and of all that was learned."""
    whole = hashlib.sha256()
    for shape in SHAPES.values():
        detector = TailDetector()
        for observed in stream(seed, calls, shape):
            before = detector.entry(observed.entered)
            found = detector.score(observed)
            detector.learn(observed)
            whole.update(repr((before, found)).encode())
        whole.update(repr(sorted(detector.as_json().items())).encode())
        whole.update(repr(detector.rested().score(observed)).encode())
    return whole.hexdigest()


def test_the_core_is_the_one_that_is_expected() -> None:
    expected = os.environ.get("EXPECTED_CORE")
    if expected is None:
        pytest.skip("EXPECTED_CORE is not set")
    assert core().kind == expected, core()


def test_the_core_says_what_it_is_and_why() -> None:
    found = core()
    assert (found.kind, bool(found.why)) in {("compiled", False), ("pure", True)}
    assert str(found).startswith(found.kind)
    assert found.why in str(found)


def test_the_environment_has_the_pure_package_used() -> None:
    program = (
        "from cloister.immune import core; from cloister.immune.detection import tail_table;"
        "from cloister.immune.wrapping import gate; print(core(), tail_table.__file__, gate.__file__)"
    )
    printed = run(program, pure=True)
    assert printed.startswith(f"pure ({PURE} is set)")
    assert printed.endswith("gate.py")
    assert "tail_table.py" in printed


def test_a_package_that_was_not_compiled_says_so_and_works(tmp_path: Path) -> None:
    tree = shutil.copytree(SOURCE / "cloister", tmp_path / "cloister", ignore=shutil.ignore_patterns("*.so"))
    assert "pure (it was not built)" in run(
        "from cloister.immune import core; print(core())", path=tree.parent
    )


def test_pure_and_compiled_sources_are_one_text() -> None:
    assert all(source_of(module).is_file() for module in MODULES)
    found = shortcut()
    assert found is None or digest_of_sources() == found.SOURCES


@needs_compiled
def test_a_core_that_was_built_from_other_sources_is_not_used_and_says_so(tmp_path: Path) -> None:
    tree = shutil.copytree(SOURCE / "cloister", tmp_path / "cloister")
    changed = tree / "immune" / "detection" / "tail_table.py"
    changed.write_text(changed.read_text() + "# changed\n")
    program = (
        "from cloister.immune import core; from cloister.immune.detection import tail_table;"
        "print(core(), tail_table.__file__)"
    )
    printed = run(program, path=tmp_path)
    assert printed.startswith("pure (it was built from other sources")
    assert printed.endswith("tail_table.py")


@needs_compiled
def test_a_core_of_which_a_part_is_missing_is_not_used_and_says_so(tmp_path: Path) -> None:
    tree = shutil.copytree(SOURCE / "cloister", tmp_path / "cloister")
    for part in (tree / "immune" / "wrapping").glob("gate.*.so"):
        part.unlink()
    printed = run("from cloister.immune import core; print(core())", path=tmp_path)
    assert printed == "pure (a part of it was not built)"


COMPILER = """
from pathlib import Path
from setuptools import Extension

def mypycify(paths, group_name, **options):
    Path("written.c").write_text("#error refused")
    return [Extension(f"{group_name}__mypyc", ["written.c"])]
"""


@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler here")
def test_what_can_not_be_built_leaves_no_older_one_in_its_place(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    tree = tmp_path / "tree"
    within = Path("src", "cloister", "immune")
    shutil.copytree(
        SOURCE / "cloister" / "immune", tree / within, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copy(ROOT / "setup.py", tree)
    (tree / "mypyc").mkdir()
    (tree / "mypyc" / "__init__.py").write_text("")
    (tree / "mypyc" / "build.py").write_text(COMPILER)
    (tree / "setup.cfg").write_text("[options]\npackage_dir =\n    = src\n")
    library, short = (f"{name}{EXTENSION_SUFFIXES[0]}" for name in (f"{LIBRARY}__mypyc", SHORTCUT))
    built = tree / "build" / "lib" / "cloister" / "immune"
    built.mkdir(parents=True)
    for folder in (built, tree / within):
        (folder / library).write_text("older")
        os.utime(folder / library, (1, 1))
    command = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-lib", "build/lib"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop(PURE, None)
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stderr + done.stdout
    assert (tree / within / short).stat().st_size > 1000
    assert not (tree / within / library).exists()
    assert not (built / library).exists()


@needs_compiled
def test_compiled_and_pure_give_every_score_alike_to_the_last_bit() -> None:
    program = "from tests.immune.test_compiled_core import scores_of; print(scores_of(11, 4000))"
    assert run(program, pure=True) == scores_of(11, 4000)


@needs_compiled
def test_what_either_learned_the_other_reads(tmp_path: Path) -> None:
    detector = TailDetector()
    for observed in stream(3, 1500):
        detector.score(observed)
        detector.learn(observed)
    kept = tmp_path / "learned"
    kept.write_text(repr(detector.as_json()))
    program = (
        "import ast; from cloister.immune.detection import TailDetector;"
        f"found = TailDetector.from_json(ast.literal_eval(open({str(kept)!r}).read()));"
        "print(repr(found.as_json()))"
    )
    assert run(program, pure=True) == repr(TailDetector.from_json(detector.as_json()).as_json())


@needs_compiled
def test_a_watched_function_is_a_function_of_its_own_text_with_a_shortcut() -> None:
    def discharge(patient: str, ward: int = 2, *, home: bool = True) -> tuple[str, int, bool]:
        """Lets a patient go."""
        return patient, ward, home

    wrapper, gate = build(discharge)
    assert isinstance(wrapper, FunctionType)
    assert wrapper.__doc__ == "Lets a patient go."
    assert wrapper("a") == ("a", 2, True)
    assert wrapper("a", ward=3, home=False) == ("a", 3, False)
    assert gate.calls == 2
    wrapper.__doc__, wrapper.__defaults__, wrapper.__kwdefaults__ = "Changed.", (7,), {"home": False}
    assert (wrapper("a"), wrapper.__doc__) == (("a", 7, False), "Changed.")
    assert (gate.calls, gate.errors) == (3, 0)


def test_what_is_set_on_a_wrapped_function_changes_every_call_or_none() -> None:
    def visit(patient: str, ward: int = 1, *, home: bool = True) -> tuple[str, int, bool]:
        return patient, ward, home

    def other(patient: str, ward: int = 3, more: int = 4, *, home: bool = True) -> tuple[str, int, int, bool]:
        return patient, ward, more, home

    def outcomes() -> set[object]:
        return {wrapper("a") for _ in range(3000)}

    with watching(TENTH):
        wrapper: Any = monitor(visit)
        assert outcomes() == {("a", 1, True)}
        visit.__defaults__ = (5,)
        assert outcomes() == {("a", 1, True)}
        visit.__kwdefaults__ = {"home": False}
        assert outcomes() == {("a", 1, True)}
        visit.__code__ = other.__code__
        for _ in range(100):
            with pytest.raises(TypeError):
                wrapper("a", 2, 3)
        visit.__defaults__ = (6, 7)
        assert outcomes() == {("a", 1, 7, True)}
        wrapper.__defaults__ = (8,)
        assert outcomes() == {("a", 8, 7, True)}


@needs_compiled
def test_a_call_whose_arguments_do_not_fit_is_neither_a_call_nor_an_error() -> None:
    def pair(one: int, two: int) -> int:
        return one // two

    wrapper, gate = build(pair)
    for wrong in (lambda: wrapper(1), lambda: wrapper(1, 2, 3), lambda: wrapper(1, three=3)):
        with pytest.raises(TypeError, match=r"pair\(\)"):
            wrong()
    assert (gate.calls, gate.errors) == (0, 0)
    with pytest.raises(ZeroDivisionError):
        wrapper(1, 0)
    with pytest.raises(TypeError):
        wrapper(1, "0")
    assert (gate.calls, gate.errors) == (2, 2)


VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
)


def _anything(one: object, /, two: object = 2, *rest: object, three: object = 3, **named: object) -> object:
    if one == 0:
        raise ValueError(one)
    return one, two, rest, three, sorted(named)


def _exact(one: object, two: object = 2, *, three: object = 3) -> object:
    return one, two, three


@settings(max_examples=300)
@given(
    which=st.sampled_from([_anything, _exact]),
    positional=st.lists(VALUES, max_size=6),
    named=st.dictionaries(
        st.one_of(st.sampled_from(["one", "two", "three"]), st.text(max_size=4)), VALUES, max_size=4
    ),
)
def test_whatever_it_is_called_with_a_watched_function_does_what_the_function_does(
    which: Callable[..., object], positional: list[object], named: dict[str, object]
) -> None:
    wrapper, gate = build(which)

    def outcome(function: Callable[..., object]) -> object:
        try:
            return repr(function(*positional, **named))
        except (TypeError, ValueError) as error:
            return type(error), str(error)

    assert outcome(wrapper) == outcome(which)
    assert gate.calls in {0, 1}


@needs_compiled
def test_the_shortcut_refuses_what_it_was_not_made_for() -> None:
    found = shortcut()
    assert found is not None

    def plain(*_: object) -> None: ...

    left, errors, entry = found.Counter(5), found.Counter(), found.Entry()
    wrapper = found.shorten(plain, plain, plain, left, errors, entry, True, True)
    for wrong in (
        (wrapper, plain, plain, left, errors, entry, True, True),
        (len, plain, plain, left, errors, entry, True, True),
        (plain, len, plain, left, errors, entry, True, True),
        (plain, plain, 3, left, errors, entry, True, True),
        (plain, plain, plain, 5, errors, entry, True, True),
        (plain, plain, plain, left, None, entry, True, True),
        (plain, plain, plain, left, errors, None, True, True),
        (plain, plain),
    ):
        with pytest.raises(TypeError):
            found.shorten(*wrong)
    with pytest.raises(OverflowError):
        found.Counter(2**70)
    with pytest.raises((TypeError, OverflowError)):
        left.cell_contents = "many"
    with pytest.raises(TypeError):
        del left.cell_contents
    with pytest.raises(TypeError):
        type(wrapper)(plain.__code__, {})


@needs_compiled
def test_calls_keep_no_reference_and_a_watched_function_ends_with_its_last_one() -> None:
    thing = object()

    def same(one: object) -> object:
        if one is None:
            raise ValueError
        return one

    wrapper, gate = build(same)
    wrapper.__dict__["itself"] = wrapper

    def all_kinds(watched: Callable[..., object]) -> None:
        watched(thing)
        watched(one=thing)
        for wrong in ((None,), (), (thing, thing)):
            with contextlib.suppress(ValueError, TypeError):
                watched(*wrong)

    all_kinds(wrapper)
    gc.collect()
    before = [sys.getrefcount(one) for one in (thing, same, wrapper, gate)]
    for _ in range(5000):
        all_kinds(wrapper)
    gc.collect()
    after = [sys.getrefcount(one) for one in (thing, same, wrapper, gate)]
    # None is immortal from 3.12 on, and shared by everything before: it isn't compared.
    assert after == before
    gone = weakref.ref(wrapper)
    del wrapper, gate
    gc.collect()
    assert gone() is None


@needs_compiled
def test_a_function_may_let_go_of_its_wrapper_while_it_runs() -> None:
    holder: list[Callable[..., object]] = []

    def last() -> str:
        holder.clear()
        gc.collect()
        return "done"

    holder.append(build(last)[0])
    assert holder[0]() == "done"


@needs_compiled
def test_threads_that_share_a_watched_function_lose_no_call_and_no_error() -> None:
    def half(number: int) -> int:
        if number % 10 == 0:
            raise ValueError
        return number // 2

    wrapper, gate = build(half)

    def many() -> None:
        for number in range(20_000):
            with contextlib.suppress(ValueError):
                wrapper(number)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (gate.calls, gate.errors) == (80_000, 8_000)


@needs_compiled
def test_endless_recursion_ends_as_an_error_whatever_limit_was_set() -> None:
    program = """
import sys
from cloister.immune import monitor
@monitor
def deeper(number):
    return deeper(number + 1)
sys.setrecursionlimit(10**6)
try:
    deeper(0)
except RecursionError:
    print("an error")
"""
    assert run(program) == "an error"


RECURSION = """
import sys, threading
from cloister.immune import core, monitor, protect
from cloister.immune.settings import ImmuneSettings
from cloister.immune.wrapping.build import gate_of

@monitor(name="tests.shop:direct")
def direct(number):
    return 0 if number == 0 else 1 + direct(number - 1)

@monitor(name="tests.shop:through_c")
def through_c(number):
    return 0 if number == 0 else 1 + max(map(through_c, [number - 1]))

def found(function, depth):
    try:
        return function(depth)
    except RecursionError:
        return -1

def in_a_thread(size, work):
    threading.stack_size(size * 1024)
    one = threading.Thread(target=work)
    one.start()
    one.join()

def all_depths():
    for size in (64, 128, 256, 1024):
        for function in (direct, through_c):
            results = []
            depths = (20, 300, 950, 4900, 100_000)
            in_a_thread(size, lambda: results.extend(found(function, one) for one in (*depths, 20)))
            assert results[0] == results[-1] == 20, results
            assert all(one in (-1, depth) for one, depth in zip(results, depths)), results

begun = []

@monitor(name="tests.shop:endless")
def endless():
    begun.append(1)
    endless()

def without_end():
    try:
        endless()
    except RecursionError:
        gate = gate_of(endless)
        assert gate.calls == gate.errors == len(begun) < 1000, (gate.calls, gate.errors, len(begun))
        begun.append("ended")

sys.setrecursionlimit(10**6)
in_a_thread(128, without_end)
assert begun[-1] == "ended"  # and what had no stack left was not counted
all_depths()
observed = {"cellagent": {"sampling": "every-call"}}
with protect(settings=ImmuneSettings.model_validate(observed)) as protection:
    all_depths()
    # The low limit of C calls there may end what judges: a fault, and the call goes on.
    assert sys.version_info[:2] == (3, 12) or not protection.status()["fault_kinds"]
print(core().kind)
"""


@needs_compiled
def test_recursion_in_a_thread_of_any_stack_ends_as_an_error_and_never_the_process() -> None:
    assert run(RECURSION) == "compiled"


@needs_compiled
def test_another_interpreter_of_the_process_has_the_pure_core_and_says_so() -> None:
    program = """
import sys
try:
    import _interpreters as interpreters
    start = lambda code: print(interpreters.exec(interpreters.create("legacy"), code) or "", end="")
except ImportError:
    import _xxsubinterpreters as interpreters
    start = lambda code: interpreters.run_string(interpreters.create(isolated=False), code)
from cloister.immune import core, monitor
assert core().kind == "compiled", core()
start('''
from cloister.immune import core, monitor
assert core().kind == "pure" and "main interpreter" in core().why or "subinterpreter" in core().why, core()
@monitor
def add(one, two): return one + two
assert add(1, 2) == 3
print("pure and works", flush=True)
''')
"""
    assert run(program).endswith("pure and works")


def test_a_monitored_function_is_the_same_in_both_cores_to_who_looks_at_it() -> None:
    program = """
import inspect, pickle, copy
from tests.immune.wrapping.watching import doubled, doubled_soon
print(inspect.signature(doubled), inspect.isfunction(doubled), inspect.iscoroutinefunction(doubled_soon),
      doubled.__qualname__, doubled.__module__, doubled.__doc__,
      pickle.loads(pickle.dumps(doubled)) is doubled,
      copy.deepcopy(doubled) is doubled, doubled(4), doubled.__code__.co_varnames, doubled.__annotations__)
"""
    assert run(program) == run(program, pure=True)


def test_random_calls_are_counted_alike_in_both_cores() -> None:
    program = """
import random
from tests.immune.wrapping.watching import watching, TENTH
from cloister.immune import monitor
chance = random.Random(4)
with watching(TENTH) as watcher:
    @monitor(name="m:f")
    def f(x):
        if x < .1: raise ValueError
        return x
    for number in range(5000):
        if number in (1000, 3000): watcher.gate("f").arm()
        if number in (1100, 3001): watcher.gate("f").disarm()
        if number % 701 == 0: watcher.gate("f").once()
        try: f(chance.random())
        except ValueError: pass
    gate = watcher.gate("f")
    print(gate.calls, gate.errors, gate.observed, sum(one.entered.calls for one in watcher.sensor("f").left))
"""
    assert run(program) == run(program, pure=True)
