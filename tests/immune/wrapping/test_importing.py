"""Functions that one can't decorate are watched by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cloister.immune.errors import ImmuneError
from cloister.immune.wrapping import FAULTS, instrument
from cloister.immune.wrapping.build import gate_of
from cloister.immune.wrapping.importing import _FINDER
from tests.immune.wrapping.watching import KeepingWatcher

SOURCE = """
from functools import cached_property, lru_cache
from os.path import join

LIMIT = 3

def pay(amount): return amount
def pay_back(amount): return -amount
@lru_cache
def cached(amount): return amount

class Till:
    def __init__(self): self.sum = 0
    def pay(self, amount):
        self.sum += amount
        return self.sum
    @staticmethod
    def opened(): return True
    @classmethod
    def named(cls): return cls.__name__
    @property
    def total(self): return self.sum
    @cached_property
    def opening(self): return self.sum
    class Drawer:
        def open(self): return "open"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "shop_of_test").mkdir()
    (tmp_path / "shop_of_test" / "__init__.py").write_text("")
    (tmp_path / "shop_of_test" / "payments.py").write_text(SOURCE)
    (tmp_path / "shop_of_test" / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "shop_of_test.payments"
    for name in [name for name in sys.modules if name.startswith("shop_of_test")]:
        del sys.modules[name]


def _load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_functions_of_a_loaded_module_are_wrapped_at_once_and_undone(
    shop: str, watcher: KeepingWatcher
) -> None:
    module = _load(shop)
    before = dict(vars(module))
    done = instrument(f"{shop}:pay*")
    assert done.names == (f"{shop}:pay", f"{shop}:pay_back")
    assert module.pay(3) == 3
    assert len(watcher.sensors[f"{shop}:pay"].left) == 1
    assert gate_of(module.cached) is None
    done.undo()
    assert dict(vars(module)) == before


def test_functions_of_a_module_that_comes_later_are_wrapped_when_it_does(
    shop: str, watcher: KeepingWatcher
) -> None:
    done = instrument(f"{shop}:*")
    assert done.names == ()
    module = _load(shop)
    assert set(done.names) == {f"{shop}:{name}" for name in ("pay", "pay_back", "cached")}
    assert (module.pay(3), module.cached(4), module.LIMIT) == (3, 4, 3)
    assert gate_of(module.join) is None
    assert gate_of(module.lru_cache) is None
    assert module.__spec__.loader is module.__loader__
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    done.undo()
    assert gate_of(module.pay) is None
    assert _FINDER not in sys.meta_path


def test_methods_of_a_class_are_wrapped_with_their_descriptors(shop: str, watcher: KeepingWatcher) -> None:
    names = ("pay", "opened", "named", "total", "opening")
    module = _load(shop)
    done = instrument(f"{shop}:Till.*")
    till = module.Till()
    assert (till.pay(3), till.opened(), till.named(), till.total, till.opening) == (3, True, "Till", 3, 3)
    assert (till.pay(1), till.opening) == (4, 3)
    assert set(done.names) == {f"{shop}:Till.{name}" for name in names}
    assert [len(watcher.sensors[f"{shop}:Till.{name}"].left) for name in names] == [2, 1, 1, 1, 1]
    inner = instrument(f"{shop}:Till.Drawer.open")
    assert module.Till.Drawer().open() == "open"
    assert len(watcher.sensors[f"{shop}:Till.Drawer.open"].left) == 1
    inner.undo()
    done.undo()
    assert gate_of(module.Till.pay) is None


def test_a_special_method_is_wrapped_only_where_it_is_named(shop: str, watcher: KeepingWatcher) -> None:
    module = _load(shop)
    done = instrument(f"{shop}:Till.__init__")
    module.Till()
    done.undo()
    assert len(watcher.sensors[f"{shop}:Till.__init__"].left) == 1


def test_what_is_wrapped_already_stays_and_is_not_undone(shop: str) -> None:
    module = _load(shop)
    first, second = instrument(f"{shop}:pay"), instrument(f"{shop}:pay")
    wrapped = module.pay
    assert second.names == ()
    second.undo()
    assert module.pay is wrapped
    module.pay = replaced = lambda amount: 0
    first.undo()
    assert module.pay is replaced


@pytest.mark.parametrize(
    "target",
    ["{shop}:nothing", "{shop}:Till.nothing", "{shop}", "no_such_module_of_test:f", "a b:c", ":", "x:"],
)
def test_an_unknown_target_is_refused_by_its_code(shop: str, target: str) -> None:
    _load(shop)
    with pytest.raises(ImmuneError) as refused:
        instrument(target.format(shop=shop))
    assert refused.value.code == "immune.target_unknown"


def test_a_module_in_which_nothing_fits_is_imported_and_counted(shop: str) -> None:
    done = instrument(f"{shop}:nothing_like_it")
    assert _load(shop).pay(1) == 1
    done.undo()
    assert FAULTS.by_kind[("instrument", "ImmuneError")] == 1


def test_an_import_that_fails_fails_as_it_would(shop: str) -> None:
    done = instrument("shop_of_test.broken:*")
    with pytest.raises(ZeroDivisionError):
        _load("shop_of_test.broken")
    done.undo()


def test_undone_before_the_import_nothing_is_wrapped(shop: str) -> None:
    instrument(f"{shop}:*").undo()
    assert _FINDER not in sys.meta_path
    assert gate_of(_load(shop).pay) is None


def test_a_module_that_is_loaded_again_is_watched_again(shop: str) -> None:
    module = _load(shop)
    done = instrument(f"{shop}:pay")
    before = module.pay
    importlib.reload(module)
    assert module.pay is not before
    assert gate_of(module.pay) is not None
    done.undo()
    assert gate_of(module.pay) is None


def test_names_that_other_modules_imported_of_it_are_watched_as_well_and_put_back(
    shop: str, watcher: KeepingWatcher, tmp_path: Path
) -> None:
    (tmp_path / "shop_of_test" / "cart.py").write_text(
        "from shop_of_test.payments import pay, pay_back as refund\ndef total(): return pay(3) + refund(1)\n"
    )
    module, cart = _load(shop), _load("shop_of_test.cart")
    bare = cart.pay
    done = instrument(f"{shop}:pay")
    assert cart.pay is module.pay is not bare
    assert gate_of(cart.refund) is None
    assert done.names == (f"{shop}:pay",)
    assert cart.total() == 2
    assert len(watcher.sensor("pay").left) == 1
    done.undo()
    assert cart.pay is module.pay is bare


def test_no_object_of_a_module_is_asked_anything_but_its_type(shop: str, tmp_path: Path) -> None:
    (tmp_path / "shop_of_test" / "lazy.py").write_text(
        "class Lazy:\n"
        "    asked = []\n"
        "    @property\n"
        "    def __class__(self):\n"
        "        Lazy.asked.append('class')\n"
        "        raise RuntimeError('settings are not configured')\n"
        "    def __getattr__(self, name):\n"
        "        Lazy.asked.append(name)\n"
        "        raise RuntimeError('settings are not configured')\n"
        "settings = Lazy()\n"
        "def pay(amount): return amount\n"
    )
    module = _load("shop_of_test.lazy")
    done = instrument("shop_of_test.lazy:*")
    assert done.names == ("shop_of_test.lazy:pay",)
    assert module.Lazy.asked == []
    done.undo()
