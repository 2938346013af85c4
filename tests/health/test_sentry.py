"""The input sentry: what isn't as declared isn't trained on, no file runs code, and no record is quoted."""

from __future__ import annotations

import io
import json
import os
import pickle
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.core.errors import CloisterError
from cloister.health import load_source, prepare_source
from cloister.health.declaration import TableDeclaration, read_declaration
from cloister.health.errors import HealthError
from cloister.health.sentry import SiteTable, read_table, table_name
from cloister.health.tensor_files import read_pt, read_safetensors

CANARY = "4711.1875"
SCHEMA = """\
document: cloister.table/v1
test_set: ward-holdout
citation: made up for this test
sites: [north, south]
table:
  name: wards
  basis: round numbers of the trade
  columns:
    - {name: age, kind: integer, lower: 0, upper: 120}
    - {name: pain, kind: category, categories: [none, some]}
    - {name: pressure, lower: 50.0, upper: 250.0}
  label: {name: outcome, classes: [well, ill]}
"""
HEADER = "age,pain,pressure,outcome\n"
ROWS = [(50, "none", 120.0, "well"), (60, "some", 130.5, "ill"), (70, "some", 90.25, "ill")]
FEATURES = np.array([[50, 0, 120.0], [60, 1, 130.5], [70, 1, 90.25]], dtype=np.float64)
LABELS = np.array([0, 1, 1], dtype=np.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "north.csv").write_text(HEADER + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in ROWS))
    return tmp_path


def declared(folder: Path, more: str = "") -> TableDeclaration:
    (folder / "schema.yaml").write_text(SCHEMA + more)
    return read_declaration(folder, "schema.yaml")


def safetensors(tensors: dict[str, np.ndarray], **changes: object) -> bytes:
    kinds = {"f4": "F32", "f8": "F64", "i8": "I64", "i4": "I32", "f2": "F16"}
    header: dict[str, object] = {}
    body = b""
    for name, array in tensors.items():
        data = array.tobytes()
        header[name] = {
            "dtype": kinds[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    header |= changes
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + body


def pt(held: object) -> bytes:
    stream = io.BytesIO()
    torch.save(held, stream)
    return stream.getvalue()


def plain() -> dict[str, torch.Tensor]:
    return {"features": torch.from_numpy(FEATURES.copy()), "labels": torch.from_numpy(LABELS.copy())}


def refusal(folder: Path, name: str, more: str = "", **asked: int) -> CloisterError:
    declaration = declared(folder, more)
    with pytest.raises(CloisterError) as caught:
        read_table(folder, name, declaration, **asked)
    whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value.as_json())
    assert CANARY not in whole
    return caught.value


# formats


FORMATS: dict[str, bytes] = {
    "north.csv": (HEADER + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in ROWS)).encode(),
    "north.safetensors": safetensors({"features": FEATURES, "labels": LABELS}),
    "north.pt": pt(plain()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_records_are_read_from_each_format(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMATS[name])
    table = read_table(tmp_path, name, declared(tmp_path))
    assert isinstance(table, SiteTable)
    assert np.array_equal(table.raw, FEATURES)
    assert np.array_equal(table.labels, LABELS)
    assert (table.records, table.units, table.subjects) == (3, 3, None)
    assert "50" not in repr(table)


def test_a_pair_and_single_precision_will_do() -> None:
    pair = pt((torch.from_numpy(FEATURES.astype(np.float32)), torch.from_numpy(LABELS)))
    assert np.array_equal(read_pt(pair, what="north.pt").features, FEATURES)
    strided = pt({"features": torch.from_numpy(FEATURES.T.copy()).T, "labels": torch.from_numpy(LABELS)})
    assert np.array_equal(read_pt(strided, what="north.pt").features, FEATURES)


def test_a_site_may_bring_tensors_to_a_job(folder: Path) -> None:
    (folder / "south.pt").write_bytes(FORMATS["north.pt"])
    (folder / "test.csv").write_text(HEADER + "40,none,100,well\n45,some,110,ill\n")
    prepare_source("csv", data_dir=folder)
    data = load_source("csv", data_dir=folder)
    assert np.array_equal(data.sites["north"].raw, data.sites["south"].raw)
    assert data.sites["north"].dataset_sha256 != data.sites["south"].dataset_sha256  # another salt


def test_a_site_with_two_tables_has_none(folder: Path) -> None:
    (folder / "north.pt").write_bytes(FORMATS["north.pt"])
    with pytest.raises(HealthError) as caught:
        table_name(folder, "north")
    assert caught.value.code == "health.two_tables"
    assert table_name(folder, "south") == "south.csv"


@pytest.mark.parametrize(
    "name", ["north.pkl", "north.npy", "north.pth", "north.ckpt", "north", "north.csv.gz"]
)
def test_another_format_is_refused_before_it_is_opened(name: str, folder: Path) -> None:
    (folder / name).write_bytes(pickle.dumps([CANARY]))
    assert refusal(folder, name).code == "input.unreadable"


def test_no_path_leads_out_of_the_folder(folder: Path) -> None:
    (folder / "link.csv").symlink_to("/etc/passwd")
    for name in ("../north.csv", "/etc/passwd.csv", "link.csv"):
        assert refusal(folder, name).code == "input.path_escapes"
    os.mkfifo(folder / "pipe.pt")
    assert refusal(folder, "pipe.pt").code == "input.unreadable"


# pickles


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


class Sneaky(torch.Tensor):
    """A subclass, whose code would be run."""


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as written:
        for name, data in members.items():
            written.writestr(name, data)
    return stream.getvalue()


def compressed(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        return archive({one: read.read(one) for one in read.namelist()}, zipfile.ZIP_DEFLATED)


def headed(data: bytes, place: int, change: Callable[[int], int]) -> bytes:
    """The archive with a number of two bytes changed in every header of a member.

    Args:
        data: the archive.
        place: of the number in a local header; in the central directory it is two bytes further.
        change: gives the number for the one that stands there.
    """
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        headers = [one.header_offset for one in read.infolist()]
        central = read.start_dir
    places = [one + place for one in headers]
    for _ in headers:
        places.append(central + place + 2)
        central = changed.find(b"PK\x01\x02", central + 1)
    for one in places:
        number = int.from_bytes(changed[one : one + 2], "little")
        changed[one : one + 2] = change(number).to_bytes(2, "little")
    return bytes(changed)


def directory_nowhere(data: bytes) -> bytes:
    """The archive with its directory said to be where no file reaches (APPNOTE 4.3.14)."""
    changed = bytearray(data)
    place = changed.index(b"PK\x06\x06") + 48
    changed[place : place + 8] = b"\xff" * 8
    return bytes(changed)


VERSION, FLAGS, METHOD = 4, 6, 8
"""Where a member's local header has them (APPNOTE 4.3.7)."""


def bad_files(mark: Path) -> dict[str, bytes]:
    tensors = plain()
    legacy = io.BytesIO()
    torch.save(tensors, legacy, _use_new_zipfile_serialization=False)
    huge = torch.zeros(1, dtype=torch.float64).expand(10**12, 3)
    return {
        "a pickle bomb": pt({"features": Bomb(mark), "labels": tensors["labels"]}),
        "a bomb beside the tensors": pt(tensors | {"note": Bomb(mark)}),
        "a plain pickle bomb": pickle.dumps(Bomb(mark)),
        "a bomb in an archive": archive({"x/data.pkl": pickle.dumps(Bomb(mark)), "x/version": b"3\n"}),
        "a torchscript archive": archive({"x/data.pkl": b".", "x/constants.pkl": b".", "x/code/a.py": b""}),
        "the older form": legacy.getvalue(),
        "a compressed archive": compressed(pt(tensors)),
        "encrypted members": headed(pt(tensors), FLAGS, lambda flags: flags | 1),
        "strongly encrypted members": headed(pt(tensors), FLAGS, lambda flags: flags | 1 << 6),
        "members that are patches": headed(pt(tensors), FLAGS, lambda flags: flags | 1 << 5),
        "an unknown compression": headed(pt(tensors), METHOD, lambda _: 99),
        "a later version of the format": headed(pt(tensors), VERSION, lambda _: 99),
        "a directory that is nowhere": directory_nowhere(pt(tensors)),
        "a pickle that asks for memory": archive(
            {"x/data.pkl": b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x10\x85R.", "x/version": b"3\n"}
        ),
        "a view larger than what backs it": pt({"features": huge, "labels": tensors["labels"]}),
        "another name": pt({"features": tensors["features"], "patients": tensors["labels"]}),
        "one more name": pt(tensors | {"notes": tensors["labels"]}),
        "text": pt(tensors | {"subjects": CANARY}),
        "labels that are no integers": pt(tensors | {"labels": tensors["labels"].double()}),
        "features that are integers": pt(tensors | {"features": tensors["features"].long()}),
        "half precision": pt(tensors | {"features": tensors["features"].half()}),
        "sparse features": pt(tensors | {"features": tensors["features"].to_sparse()}),
        "a parameter": pt(tensors | {"features": torch.nn.Parameter(tensors["features"])}),
        "a subclass": pt(tensors | {"features": tensors["features"].as_subclass(Sneaky)}),
        "too few labels": pt(tensors | {"labels": tensors["labels"][:2].clone()}),
        "a model": pt(torch.nn.Linear(3, 2)),
        "a state": pt(torch.nn.Linear(3, 2).state_dict()),
        "nothing": b"",
        "something cut off": pt(tensors)[:-40],
        "text in disguise": CANARY.encode() * 100,
    }


def records_in(data: bytes) -> int:
    """How many records are read from a file; 0 for a file that is refused."""
    try:
        return len(read_pt(data, what="north.pt").features)
    except HealthError:
        return 0


def test_torch_is_given_the_members_that_were_looked_at_not_others_of_the_same_file() -> None:
    """Two directories in one file: one reader takes the last, with its offsets shifted, another the first."""
    large = {"features": torch.zeros(200_000, 3), "labels": torch.zeros(200_000, dtype=torch.int64)}
    small, hidden = pt(plain()), compressed(pt(large))
    shifted = bytearray(hidden + small)
    end = shifted.rindex(b"PK\x05\x06")
    shifted[end + 16 : end + 20] = hidden.index(b"PK\x01\x02").to_bytes(4, "little")
    assert records_in(small) == len(FEATURES)
    assert records_in(hidden) == 0
    for both in (hidden + small, bytes(shifted)):
        assert records_in(both) in (0, len(FEATURES))


@pytest.mark.parametrize("kind", bad_files(Path("/nowhere")))
def test_a_file_that_holds_anything_but_plain_tensors_is_refused_and_none_of_it_runs(
    kind: str, folder: Path
) -> None:
    mark = folder / "the bomb went off"
    (folder / "north.pt").write_bytes(bad_files(mark)[kind])
    assert refusal(folder, "north.pt").code == "health.tensor_file"
    assert not mark.exists()


def test_the_bomb_is_a_bomb(tmp_path: Path) -> None:
    mark = tmp_path / "the bomb went off"
    torch.load(io.BytesIO(bad_files(mark)["a pickle bomb"]), weights_only=False)
    assert mark.exists()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from([".pt", ".safetensors"]))
def test_whatever_byte_is_changed_only_a_typed_error_comes(place: int, byte: int, ending: str) -> None:
    data = bytearray(FORMATS["north" + ending])
    data[place % len(data)] = byte
    reader = read_pt if ending == ".pt" else read_safetensors
    try:
        table = reader(bytes(data), what="north")
    except HealthError as error:
        assert error.code == "health.tensor_file"  # noqa: PT017
    else:
        assert table.features.dtype == np.float64
        assert table.features.shape[0] == table.labels.shape[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        safetensors({"features": FEATURES}),
        safetensors({"features": FEATURES, "labels": LABELS.astype(np.int32)}),
        safetensors({"features": FEATURES.astype(np.float16), "labels": LABELS}),
        safetensors({"features": LABELS.reshape(3, 1), "labels": LABELS}),
        safetensors({"features": FEATURES.ravel(), "labels": LABELS}),
        safetensors({"features": FEATURES, "labels": LABELS}) + b"more",
        safetensors({"features": FEATURES, "labels": LABELS})[:-1],
        safetensors({"features": FEATURES, "labels": LABELS}, __metadata__={"patient": CANARY}),
        safetensors({"features": FEATURES, "labels": LABELS, CANARY: LABELS}),
        safetensors(
            {"labels": LABELS},
            features={"dtype": "F64", "shape": [3, 1], "data_offsets": [0, 24]},
        ),
        safetensors({}, features={"dtype": "F64", "shape": [-1, -3], "data_offsets": [0, 24]}),
        safetensors({}, features={"dtype": "F64", "shape": [2**60, 2**60], "data_offsets": [0, 0]}),
    ],
)
def test_a_safetensors_file_that_is_not_strict_is_refused(data: bytes, folder: Path) -> None:
    (folder / "north.safetensors").write_bytes(data)
    assert refusal(folder, "north.safetensors").code == "health.tensor_file"


# content


@pytest.mark.parametrize(
    ("features", "labels", "code"),
    [
        (FEATURES[:, :2], LABELS, "health.columns"),
        (np.where(FEATURES == 120.0, 4711.1875, FEATURES), LABELS, "health.out_of_range"),
        (np.where(FEATURES == 120.0, np.nan, FEATURES), LABELS, "health.not_finite"),
        (np.where(FEATURES == 50.0, 50.5, FEATURES), LABELS, "health.type"),
        (np.where(FEATURES == 0.0, 2.0, FEATURES), LABELS, "health.out_of_range"),
        (FEATURES, LABELS + 1, "health.label"),
        (FEATURES, LABELS - 4711, "health.label"),
        (FEATURES[:0], LABELS[:0], "health.empty"),
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_tensors_are_held_against_the_declared_schema(
    features: np.ndarray, labels: np.ndarray, code: str, ending: str, folder: Path
) -> None:
    features, labels = np.ascontiguousarray(features), np.ascontiguousarray(labels)
    data = (
        pt({"features": torch.from_numpy(features), "labels": torch.from_numpy(labels)})
        if ending == ".pt"
        else safetensors({"features": features, "labels": labels})
    )
    (folder / f"north{ending}").write_bytes(data)
    assert refusal(folder, f"north{ending}").code == code


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (f"{CANARY},none,120,well", "health.type"),
        (f"50,{CANARY},120,well", "health.type"),
        (f"50,none,{CANARY},well", "health.out_of_range"),
        (f"50,none,x{CANARY},well", "health.type"),
        (f"50,none,120,{CANARY}", "health.label"),
        (f"50,none,120,well,{CANARY}", "health.columns"),
        (f'50,none,120,"well{CANARY}', "input.syntax"),
        (f"50,none,120,well\ud800{CANARY}", "input.syntax"),
    ],
)
def test_no_cell_is_quoted_by_any_refusal_or_its_traceback(row: str, code: str, folder: Path) -> None:
    with (folder / "north.csv").open("ab") as file:
        file.write(row.encode("utf-8", "surrogatepass") + b"\n")
    assert refusal(folder, "north.csv").code == code


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.text(max_size=12), max_size=6), place=st.integers(0, 4))
def test_whatever_stands_in_a_cell_it_is_refused_without_a_word_of_it_or_as_declared(
    cells: list[str], place: int, folder: Path
) -> None:
    row = ["50", "none", "120", "well"][:place] + [f"{CANARY}{cell}" for cell in cells]
    (folder / "north.csv").write_bytes((HEADER + ",".join(row) + "\n").encode("utf-8", "surrogatepass"))
    declaration = read_declaration(folder, "schema.yaml")
    try:
        table = read_table(folder, "north.csv", declaration)
    except CloisterError as error:
        whole = "".join(traceback.format_exception(error)) + repr(error.as_json())
        assert CANARY not in whole
    else:
        assert (table.raw >= [0, 0, 50]).all()
        assert (table.raw <= [120, 1, 250]).all()


# persons and groups


PERSONS = "subject: {column: person, rows: one}\n"


def people(folder: Path, *ids: str) -> None:
    rows = "".join(f"{one},50,none,120,well\n" for one in ids)
    (folder / "north.csv").write_text("person," + HEADER + rows)


def test_where_one_row_each_is_declared_a_second_is_refused(folder: Path) -> None:
    people(folder, "a", "b", "c")
    assert read_table(folder, "north.csv", declared(folder, PERSONS)).units == 3
    people(folder, f"p{CANARY}", "b", f" p{CANARY} ")
    error = refusal(folder, "north.csv", PERSONS)
    assert error.code == "health.subject_repeated"
    assert error.details == ("column person: 1 row(s) too many",)
    many = declared(folder, "subject: {column: person}\n")
    assert read_table(folder, "north.csv", many).units == 2


def test_persons_are_told_apart_in_tensors_too(folder: Path) -> None:
    held = plain() | {"subjects": torch.tensor([900, -3, 900])}
    (folder / "north.pt").write_bytes(pt(held))
    table = read_table(folder, "north.pt", declared(folder, "subject: {column: person}\n"))
    assert table.subjects is not None
    assert table.subjects.numbers.tolist() == [0, 1, 0]
    assert refusal(folder, "north.pt", PERSONS).code == "health.subject_repeated"
    assert refusal(folder, "north.pt").code == "health.subject"
    (folder / "north.pt").write_bytes(pt(plain()))
    assert refusal(folder, "north.pt", PERSONS).code == "health.subject"
    (folder / "north.pt").write_bytes(pt(plain() | {"subjects": torch.tensor([7, 7, 7])}))
    assert refusal(folder, "north.pt", "subject: {column: person}\n").code == "health.one_subject"


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=20).filter(lambda ids: len(set(ids)) > 1))
def test_numbers_of_persons_are_those_of_their_first_appearance(ids: list[int]) -> None:
    from cloister.health.subjects import number_subjects, read_subjects

    numbers = number_subjects("person", np.array(ids, dtype=np.int64), what="t").numbers
    texts = read_subjects("person", [f"p{one}" for one in ids], what="t").numbers
    assert numbers.tolist() == texts.tolist()


@pytest.mark.parametrize(
    ("more", "asked"),
    [("minimum_group_size: 4\n", {}), ("", {"minimum_group_size": 4}), (PERSONS, {"minimum_group_size": 4})],
)
def test_too_few_records_or_persons_are_not_trained_on(
    more: str, asked: dict[str, int], folder: Path
) -> None:
    if "subject" in more:
        people(folder, "a", "b", "c")
    assert refusal(folder, "north.csv", more, **asked).code == "health.group_too_small"
    enough = dict.fromkeys(asked, 3)
    declaration = declared(folder, more.replace("size: 4", "size: 3"))
    assert read_table(folder, "north.csv", declaration, **enough).units == 3


def test_persons_count_where_they_are_declared_not_rows(folder: Path) -> None:
    people(folder, "a", "b", "b", "b", "b")
    more = "subject: {column: person}\n"
    assert refusal(folder, "north.csv", more, minimum_group_size=3).code == "health.group_too_small"


# the command


def test_the_command_says_what_a_table_holds(
    folder: Path, capsys: pytest.CaptureFixture[str], command: Callable[..., int]
) -> None:
    assert command("table", "check", folder / "north.csv") == 0
    shown = capsys.readouterr().out
    assert "north.csv is what schema.yaml declares." in shown
    assert "3 records, in 3 columns" in shown
    assert command("table", "check", folder / "north.csv", "--json", "--minimum-group", "3") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["accepted"], answer["records"], answer["subjects"]) == (True, 3, None)
    assert command("table", "check", folder / "north.csv", "--json", "--minimum-group", "4") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "health.group_too_small"
    schema = folder.parent / "other.yaml"
    schema.write_text((folder / "schema.yaml").read_text().replace("upper: 250.0", "upper: 100.0"))
    assert command("table", "check", folder / "north.csv", "--schema", schema) == 2
    assert "health.out_of_range" in capsys.readouterr().err


@pytest.fixture
def command() -> Callable[..., int]:
    from cloister.cli.main import main

    def run(*words: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run
