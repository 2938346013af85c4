"""The reference of settings is what the code declares, and its example is read."""

from __future__ import annotations

import re
from pathlib import Path

from tools.write_immune_settings import PAGE, attributes, page

from cloister.immune.settings import ImmuneSettings
from cloister.immune.settings_file import environment_name, known_names, load_immune_settings
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "reference" / "immune-settings.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_script_writes_now() -> None:
    """PIC-29.1.d: the configuration reference compared with the schema."""
    assert PAGE == ROOT / "docs" / "reference" / "immune-settings.md"
    assert page() == TEXT, "run: python tools/write_immune_settings.py"


def test_every_setting_is_on_it_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(PIC_\w+)` \|$", TEXT, re.MULTILINE)
    assert [variable for _, variable in rows] == [environment_name(name) for name in known_names()]
    assert [key for key, _ in rows] == [name.partition(".")[2] for name in known_names()]


def test_every_setting_says_what_it_means_and_nothing_else_is_said() -> None:
    for field in ImmuneSettings.model_fields.values():
        assert field.annotation is not None
        assert set(attributes(field.annotation)) == set(field.annotation.model_fields)


def test_its_example_is_read(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.+?)```", TEXT, re.DOTALL)
    assert example is not None
    path = tmp_path / "pic.yaml"
    path.write_text(example[1])
    found = load_immune_settings({}, environment={}, file=path)
    assert found.effector.enforcing == ("shop.payments:refund",)
