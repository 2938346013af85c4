"""Settings from the command line, the environment, a file and defaults, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.errors import InputError
from cloister.immune.errors import ImmuneError
from cloister.immune.settings import ImmuneSettings
from cloister.immune.settings_file import environment_name, get, known_names, load_immune_settings

RATE = "cellagent.sampling_rate"


def load(
    arguments: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ImmuneSettings:
    return load_immune_settings(arguments or {}, environment=environment or {}, file=file)


def refusal(
    arguments: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ImmuneError:
    with pytest.raises(ImmuneError) as caught:
        load(arguments, environment, file)
    assert caught.value.code == "immune.setting_invalid"
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pic.yaml"
    path.write_text(
        "cellagent:\n  sampling_rate: 0.3\n  buffer_size: 77\neffector:\n  enforcing: [shop:pay]\n"
    )
    return path


def test_the_defaults_are_those_of_the_seed() -> None:
    """PIC-X1: the default tree."""
    found = load()
    assert found == ImmuneSettings()
    wanted = {
        "cellagent.sampling_rate": 0.1,
        "cellagent.buffer_size": 10_000,
        "cellagent.batch_size": 100,
        "cellagent.batch_interval_sec": 5.0,
        "cellagent.cpu_threshold": 0.02,
        "baseline.window_hours": 72.0,
        "baseline.min_samples": 20,
        "anomaly.threshold_percentile": 95.0,
        "anomaly.candidate_score_threshold": 80.0,
        "effector.default_action": "allow",
        "effector.fail_safe_mode": "allow",
        "storage.trace_buffer_size": 1000,
        "api.host": "127.0.0.1",
        "api.port": 8443,
        "api.metrics_enabled": True,
    }
    assert {name: get(found, name) for name in wanted} == wanted


def test_a_file_is_read(file: Path) -> None:
    """PIC-2.1.a: the file."""
    found = load(file=file)
    assert (found.cellagent.sampling_rate, found.cellagent.buffer_size) == (0.3, 77)
    assert found.effector.enforcing == ("shop:pay",)


def test_the_environment_is_read() -> None:
    """PIC-2.1.a: the environment."""
    found = load(environment={"PIC_CELLAGENT__SAMPLING_RATE": "0.2", "PIC_EGRESS__ENABLED": "false"})
    assert (found.cellagent.sampling_rate, found.egress.enabled) == (0.2, False)


@pytest.mark.parametrize("text", ['["a:b", "c:d"]', "a:b,c:d", " a:b , c:d ,"])
def test_a_list_in_the_environment_is_json_or_has_commas(text: str) -> None:
    assert load(environment={"PIC_EFFECTOR__ENFORCING": text}).effector.enforcing == ("a:b", "c:d")


@pytest.mark.parametrize(
    "text", ['{"service": "shop", "host": "a=b"}', "service=shop,host=a=b", " service = shop ,host=a=b,"]
)
def test_a_mapping_in_the_environment_is_json_or_has_commas(text: str) -> None:
    found = load(environment={"PIC_CELLAGENT__RESOURCE_TAGS": text}).cellagent.resource_tags
    assert found == {"service": "shop", "host": "a=b"}


def test_a_name_that_is_like_none_is_not_taken_for_another() -> None:
    for variable in ("PIC_FOO__BAR", "PIC_X__Y"):
        refused = refusal(environment={variable: "1"})
        assert variable in refused.message
        assert refused.hint == "See docs/reference/immune-settings.md."


def test_the_command_line_is_read() -> None:
    """PIC-2.1.a: the command line."""
    assert load({RATE: 0.4, "api.port": None}).cellagent.sampling_rate == 0.4


def test_the_first_source_that_has_a_key_is_taken(file: Path) -> None:
    """PIC-2.1.b: the same key in all four, taken away one by one."""
    environment = {"PIC_CELLAGENT__SAMPLING_RATE": "0.2"}
    assert load({RATE: 0.4}, environment, file).cellagent.sampling_rate == 0.4
    assert load({}, environment, file).cellagent.sampling_rate == 0.2
    assert load({}, {}, file).cellagent.sampling_rate == 0.3
    assert load().cellagent.sampling_rate == 0.1


@settings(max_examples=100)
@given(st.sets(st.sampled_from(["command line", "environment", "file"])))
def test_whatever_sources_there_are_the_order_is_kept(sources: set[str]) -> None:
    """PIC-2.1.b for every set of sources."""
    with pytest.MonkeyPatch.context() as patch:
        document = {"cellagent": {"sampling_rate": 0.3}} if "file" in sources else {}
        patch.setattr("cloister.immune.settings_file._read_yaml", lambda _: document)
        found = load(
            {RATE: 0.4} if "command line" in sources else {},
            {"PIC_CELLAGENT__SAMPLING_RATE": "0.2"} if "environment" in sources else {},
            Path("any"),
        )
    order = [("command line", 0.4), ("environment", 0.2), ("file", 0.3)]
    assert found.cellagent.sampling_rate == next((rate for one, rate in order if one in sources), 0.1)


def test_a_dotted_name_reads_one_setting_and_a_default_stands_for_none() -> None:
    """PIC-2.1.c: dot notation."""
    found = ImmuneSettings()
    assert get(found, "cellagent.sampling_rate") == 0.1
    assert get(found, "cellagent") == found.cellagent
    for wrong in ("cellagent.sampling", "nothing", "cellagent.sampling_rate.more", "", "cellagent.__class__"):
        assert get(found, wrong, "default") == ("budgeted" if wrong == "cellagent.sampling" else "default")
    assert get(found, "nothing") is None


def test_every_setting_has_one_name_everywhere() -> None:
    names = known_names()
    assert len(names) == len(set(names)) > 30
    assert len({environment_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "named", "meant"),
    [
        ("cellagent:\n  samplingrate: 1", "cellagent.samplingrate", "cellagent.sampling_rate"),
        ("celagent:\n  sampling_rate: 1", "celagent", "cellagent"),
        ("cellagent:\n  port: 1", "cellagent.port", "api.port"),
    ],
)
def test_an_unknown_key_in_the_file_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, text: str, named: str, meant: str
) -> None:
    path = tmp_path / "pic.yaml"
    path.write_text(text)
    refused = refusal(file=path)
    assert f"{named} in " in refused.message
    assert meant in refused.hint


@pytest.mark.parametrize(
    "variable",
    ["PIC_CELAGENT__SAMPLING_RATE", "PIC_CELLAGENT_SAMPLING_RATE", "PIC_CELLAGENT__SAMPLINGRATE"],
)
def test_an_unknown_key_in_the_environment_is_refused_with_the_one_that_was_meant(variable: str) -> None:
    refused = refusal(environment={variable: "0.2"})
    assert variable in refused.message
    assert "PIC_CELLAGENT__SAMPLING_RATE" in refused.hint


def test_an_unknown_key_on_the_command_line_is_refused() -> None:
    assert "api.port" in refusal({"api.prot": 1}).hint


def test_other_names_in_the_environment_are_somebody_elses() -> None:
    environment = {"PIC_OFF": "1", "PATH": "/bin", "PICTURE__SIZE": "3", "PIC_CELLAGENT__SAMPLING_RATE": ""}
    assert load(environment=environment) == ImmuneSettings()


@pytest.mark.parametrize(
    "text",
    [
        "cellagent: [1",
        "a: &x 1\nb: *x",
        "- cellagent",
        "cellagent: 7",
        "cellagent:\n  sampling_rate: 1\n  sampling_rate: 0.1",
        "cellagent:\n  sampling_rate: .nan",
        "!!python/object:os.system {}",
        "\x00",
        "[" * 100,
    ],
)
def test_bad_yaml_is_one_typed_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pic.yaml"
    path.write_text(text)
    assert str(path) in refusal(file=path).message


def test_an_error_in_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pic.yaml"
    path.write_text("cellagent:\n  sampling_rate: 0.1\n bad\n")
    assert "line 3" in refusal(file=path).message


def test_an_empty_file_or_section_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pic.yaml"
    for text in ("", "cellagent:\n", "# nothing\n"):
        path.write_text(text)
        assert load(file=path) == ImmuneSettings()


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(file=tmp_path / "absent.yaml")
    assert caught.value.code == "input.missing_file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (RATE, "0"),
        (RATE, "1.1"),
        (RATE, "nan"),
        (RATE, "Mrs Miller"),
        ("cellagent.buffer_size", "0"),
        ("api.port", "65536"),
        ("anomaly.detector", "Mrs Miller"),
        ("effector.default_action", "block"),
        ("effector.enforcing", "[1"),
        ("cellagent.resource_tags", "shop"),
        ("cellagent.resource_tags", "{"),
        ("cellagent.resource_tags", '{"service": 1}'),
        ("cellagent.resource_tags", f"Mrs Miller={'a' * 129}"),
        ("baseline.block_after", "199"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name_and_not_repeated(name: str, value: str) -> None:
    refused = refusal(environment={environment_name(name): value})
    said = str(refused) + refused.hint + "".join(refused.details)
    assert name in said or environment_name(name) in said
    assert "Miller" not in said


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("default_action", "a call that no promoted detector recognised runs"),
        ("fail_safe_mode", "a fault of the immune system never costs the application a call"),
    ],
)
@pytest.mark.parametrize("value", ["block", "closed", "", "ALLOW"])
def test_the_actions_that_are_always_allow_say_why_they_are(key: str, why: str, value: str) -> None:
    """PIC-X1 names both keys; PIC-19.1.d and W6 leave each one value."""
    said = str(refusal({f"effector.{key}": value}))
    assert f"effector.{key}" in said
    assert why in said


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().cellagent.sampling_rate = 0.5  # type: ignore[misc]
