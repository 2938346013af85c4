"""Builds the optional compiled core of ``cloister.immune``; everything else is in pyproject.toml.

Without a C compiler, without mypy, and with ``CLOISTER_IMMUNE_PURE=1`` the package is pure, and works.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

IMMUNE = Path("src", "cloister", "immune")


def plan() -> ModuleType:
    """What is compiled, from the package itself: it needs nothing of the package's own."""
    spec = importlib.util.spec_from_file_location("compiled_core", IMMUNE / "compiled_core.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PLAN = plan()
SOURCES = [str(PLAN.source_of(module, IMMUNE)) for module in PLAN.MODULES]


class BuildCore(build_ext):
    """Has mypyc write its C only when extensions are built: setup runs for every question that pip asks."""

    def run(self) -> None:
        """Build what mypyc writes as well; without it there is no core to build."""
        if self.extensions:
            compiled = modules()
            self.distribution.ext_modules = [SHORTCUT, *compiled] if compiled else []
            # Setuptools looks at each extension once more; the one option that it can't read twice is unset.
            self.swig_opts = None
            self.finalize_options()
        super().run()

    def build_extension(self, one: Extension) -> None:
        """Build one; where it can't be built an older one of that name doesn't stay in its place.

        The shortcut alone knows which sources it is of, and every extension is optional.
        """
        try:
            super().build_extension(one)
        except Exception:
            file = self.get_ext_filename(self.get_ext_fullname(one.name))
            for folder in (self.build_lib, "src"):
                Path(folder, file).unlink(missing_ok=True)
            raise


def modules() -> list[Extension]:
    """The compiled modules; none where mypyc isn't there or refuses."""
    try:
        from mypyc.build import mypycify

        found = mypycify(
            [
                "--config-file=",
                "--cache-dir=build/mypy",
                "--follow-imports=silent",
                "--ignore-missing-imports",
                *SOURCES,
            ],
            group_name=f"cloister.immune.{PLAN.LIBRARY}",
            opt_level="2",
            debug_level="0",
        )
    except (ImportError, SystemExit) as error:
        print(f"warning: the pure package is built: mypyc: {error}", file=sys.stderr)
        return []
    for one in found:
        one.optional = True
    return found


SHORTCUT = Extension(
    f"cloister.immune.{PLAN.SHORTCUT}",
    [str(IMMUNE / f"{PLAN.SHORTCUT}.c")],
    define_macros=[("CORE_SOURCES", f'"{PLAN.digest_of_sources(IMMUNE)}"')],
    depends=[*SOURCES, str(IMMUNE / PLAN.HEADER)],
    optional=True,
)

setup(ext_modules=[] if PLAN.is_pure_wanted() else [SHORTCUT], cmdclass={"build_ext": BuildCore})
