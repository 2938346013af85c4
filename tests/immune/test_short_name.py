"""``pic`` is the short name of `cloister.immune`: its modules give the room's own objects (PIC-1.a)."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import cloister.immune
import pic


@pytest.mark.parametrize("name", ["config", "crypto", "models", "storage"])
def test_each_module_of_the_seeds_layout_imports_and_defines_nothing_of_its_own(name: str) -> None:
    module = importlib.import_module(f"pic.{name}")
    assert module.__all__ == sorted(module.__all__)
    for one in module.__all__:
        assert getattr(module, one).__module__.startswith(("cloister.immune", "cloister.core"))


def test_what_stands_at_the_top_is_what_the_room_has() -> None:
    assert all(getattr(pic, one) is getattr(cloister.immune, one) for one in pic.__all__)


def test_the_short_name_loads_none_of_its_modules_by_itself() -> None:
    code = "import sys, pic; print([one for one in sys.modules if one.startswith('pic.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
