"""A virtual environment that holds what one requirement needs, and nothing else, made without any network.

Instead of fetching distributions it links those that are installed here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def closure(requirement: str) -> dict[str, Distribution]:
    """Every distribution that a requirement leads to, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(requirement)]
    while todo:
        wanted = todo.pop()
        if (wanted.name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((wanted.name, frozenset(wanted.extras)))
        found[wanted.name] = distribution(wanted.name)
        for text in found[wanted.name].requires or ():
            further = Requirement(text)
            extras = wanted.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": one}) for one in extras):
                todo.append(further)
    return found


def install(requirement: str, environment: Path) -> None:
    """Do what ``pip install`` would have done in that environment, by links."""
    (site_packages,) = environment.glob("lib/python*/site-packages")
    for name, installed in closure(requirement).items():
        places = [ROOT / "src" / "cloister"] if name == "cloister" else _places(installed)
        for place in places:
            link = site_packages / place.name
            if not link.exists():
                link.symlink_to(place)
    for name, target in _console_scripts().items():
        module, _, function = target.partition(":")
        script = environment / "bin" / name
        python = environment.resolve() / "bin" / "python"
        script.write_text(
            f"#!{python}\nimport sys\nfrom {module} import {function} as main\nsys.exit(main())\n"
        )
        script.chmod(0o755)


def _places(installed: Distribution) -> Iterator[Path]:
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in sorted(tops):
        yield Path(str(installed.locate_file(top)))


def _console_scripts() -> dict[str, str]:
    scripts: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return scripts
