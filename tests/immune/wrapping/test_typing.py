"""To a type checker a wrapped function is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nightly import needs

SOURCE = """
from collections.abc import AsyncIterator, Iterator
from cloister.immune.wrapping import monitor

@monitor
def plain(one: int, *, two: str = "") -> float: return 1.0
@monitor
async def soon(one: int) -> str: return ""
@monitor
def several(one: int) -> Iterator[int]: yield one
@monitor(on_block=None, name="m:f")
def named(one: int) -> bytes: return b""

class Ward:
    @monitor
    def method(self, one: int) -> int: return one
    @monitor
    @classmethod
    def of(cls, one: int) -> "Ward": return cls()
    @staticmethod
    @monitor
    def static(one: int) -> int: return one
    @property
    @monitor
    def beds(self) -> int: return 1

async def main() -> None:
    reveal_type(plain(1, two="2"))
    reveal_type(await soon(1))
    reveal_type(several(1))
    reveal_type(named(1))
    reveal_type(Ward().method(1))
    reveal_type(Ward.of(1))
    reveal_type(Ward.static(1))
    reveal_type(Ward().beds)
    plain("1")
    named(one=1, two=2)
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_types_of_parameters_and_results_are_kept(tmp_path: Path) -> None:
    needs(60)
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "typed.py").write_text(SOURCE)
    cache = tmp_path / "cache"
    asked = ["--strict", "--config-file", "", "--cache-dir", str(cache), "--follow-imports", "silent"]
    out, err, _ = api.run([*asked, str(tmp_path / "typed.py")])
    revealed = [line.split('"')[1] for line in out.splitlines() if "Revealed" in line]
    assert [one.replace("builtins.", "") for one in revealed] == [
        "float",
        "str",
        "typing.Iterator[int]",
        "bytes",
        "int",
        "typed.Ward",
        "int",
        "int",
    ], out + err
    errors = [line for line in out.splitlines() if ": error:" in line]
    assert len(errors) == 2, out
    assert "arg-type" in errors[0]
    assert "call-arg" in errors[1]
