"""Tables as tensors: ``.safetensors`` and ``.pt`` files with ``features``, ``labels`` and ``subjects``.

``features`` are float32 or float64 of shape [records, columns] in the declared order and in the columns' own
units, a category as the index of its name. ``labels`` are int64 indices of classes; ``subjects``, int64, say
whose each record is where that is declared, by numbers that differ where persons do. A ``.pt`` file holds
them by name, or as the pair (features, labels).

Rules kept here:

* No code of a file is run. A ``.pt`` file is a pickle inside a ZIP archive; it is read by
  ``torch.load(..., weights_only=True)``, whose unpickler knows tensors and plain containers alone, after the
  archive was looked at: only the form that torch writes today, stored without compression, so that nothing
  small becomes large. The older forms are refused. What torch is given is written anew from what was
  looked at, and its pickle names tensors and what holds them, and nothing else.
* Only these names, plain dense tensors, these types and shapes. A tensor that is larger than what backs it
  in the file (a view that repeats itself) is refused before it is copied.
* A safetensors file is strict: no metadata, every byte of the data belongs to one tensor.
* No value of a record appears in an error.

Sources: the safetensors format's README; PyTorch's documentation of ``torch.load``; CVE-2025-32434 (the
older archive forms).
"""

from __future__ import annotations

import io
import math
import pickletools  # reads the operations of a pickle; runs none
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cloister.core.canonical import parse
from cloister.core.errors import InputError
from cloister.health.errors import HealthError
from cloister.health.schema import Float64Array, Int64Array

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    Array = npt.NDArray[np.float32] | npt.NDArray[np.float64] | npt.NDArray[np.int64]

FEATURES: Final = "features"
LABELS: Final = "labels"
SUBJECTS: Final = "subjects"

_DTYPES: Final[Mapping[str, np.dtype[np.float32] | np.dtype[np.float64] | np.dtype[np.int64]]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_MEMBERS: Final = 64
_MAX_PICKLE_BYTES: Final = 64 * 1024
_MAX_BUILT = 16
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch DoubleStorage",
        "torch FloatStorage",
        "torch LongStorage",
        "torch._utils _rebuild_tensor_v2",
    }
)
_OPERATIONS = frozenset(
    {
        "APPEND",
        "APPENDS",
        "BINGET",
        "BININT",
        "BININT1",
        "BININT2",
        "BINPERSID",
        "BINPUT",
        "BINUNICODE",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "GLOBAL",
        "LONG1",
        "LONG_BINGET",
        "LONG_BINPUT",
        "MARK",
        "NEWFALSE",
        "NEWTRUE",
        "NONE",
        "PROTO",
        "REDUCE",
        "SETITEM",
        "SETITEMS",
        "STOP",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
    }
)


@dataclass(frozen=True, eq=False)
class TensorTable:
    """What a file of tensors holds; values are not checked yet.

    Attributes:
        features: [records, columns].
        labels: [records].
        subjects: [records], or None.
    """

    features: Float64Array
    labels: Int64Array
    subjects: Int64Array | None


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: list[int] = Field(max_length=2)
    data_offsets: list[int] = Field(min_length=2, max_length=2)


_HEADER = TypeAdapter(dict[str, _Entry])


def read_safetensors(data: bytes, *, what: str) -> TensorTable:
    """Read a safetensors file.

    Args:
        data: the file.
        what: its name for messages.

    Raises:
        HealthError: ``health.tensor_file``.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise _malformed(what)
    try:
        header = _HEADER.validate_python(parse(data[8 : 8 + length], max_bytes=_MAX_HEADER_BYTES))
    except (InputError, ValidationError):
        raise _malformed(what) from None
    body = memoryview(data)[8 + length :]
    arrays: dict[str, Array] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        dtype = _DTYPES.get(entry.dtype)
        start, stop = entry.data_offsets
        if dtype is None or min(entry.shape, default=1) < 0 or start != end:
            raise _malformed(what)
        if stop - start != math.prod(entry.shape) * dtype.itemsize or stop > len(body):
            raise _malformed(what)
        arrays[name] = cast("Array", np.frombuffer(body[start:stop], dtype=dtype).reshape(entry.shape))
        end = stop
    if end != len(body):
        raise _malformed(what)
    return _table(arrays, what)


def read_pt(data: bytes, *, what: str) -> TensorTable:
    """Read a ``.pt`` file without running anything in it.

    Args:
        data: the file.
        what: its name for messages.

    Raises:
        HealthError: ``health.tensor_file``, or ``health.no_library`` where torch isn't installed.
    """
    archive = _plain_archive(data, what)
    try:
        import torch
    except ImportError:
        raise HealthError(
            "health.no_library", "Reading .pt files takes torch.", "Install it, or use .safetensors."
        ) from None
    try:
        # A warning could quote the file as well.
        with warnings.catch_warnings(action="ignore"):
            held = torch.load(archive, map_location="cpu", weights_only=True, mmap=False)
    except Exception:
        # Whatever the unpickler says may quote the file.
        raise _malformed(what) from None
    if type(held) in (tuple, list) and len(held) == 2:
        held = {FEATURES: held[0], LABELS: held[1]}
    if type(held) is not dict or not all(type(name) is str for name in held):
        raise _malformed(what)
    return _table({name: _array(one, torch.Tensor, what) for name, one in held.items()}, what)


def _plain_archive(data: bytes, what: str) -> io.BytesIO:
    """A new archive of the members as they were checked: two readers may find different ones in one file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _require_plain_members(members, data, what)
            contents = {one.filename: archive.read(one) for one in members}
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError, EOFError, OverflowError):
        # RuntimeError: of what zipfile doesn't do, of a password that is missing, of nesting too deep.
        # OverflowError: of a directory farther than a file can be long.
        raise _malformed(what) from None
    _require_plain_pickle(next(body for name, body in contents.items() if name.endswith(".pkl")), what)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as fresh:
        for name, body in contents.items():
            fresh.writestr(name, body)
    written.seek(0)
    return written


def _require_plain_members(members: list[zipfile.ZipInfo], data: bytes, what: str) -> None:
    names = [one.filename for one in members]
    pickles = [one for one in members if one.filename.endswith(".pkl")]
    if (
        not data.startswith(b"PK\x03\x04")
        or not 1 <= len(members) <= _MAX_MEMBERS
        or len(set(names)) != len(names)
        or any(one.compress_type != zipfile.ZIP_STORED or one.flag_bits & 1 for one in members)
        or sum(one.file_size for one in members) > len(data)
        or [one.filename.rpartition("/")[2] for one in pickles] != ["data.pkl"]
        or pickles[0].file_size > _MAX_PICKLE_BYTES
        or any("constants" in name.split("/") or name.endswith(".py") for name in names)
    ):
        raise _malformed(what)


def _require_plain_pickle(pickled: bytes, what: str) -> None:
    """It names nothing but tensors and what holds them; less is enough to fill the memory."""
    try:
        operations = [(one.name, argument) for one, argument, _ in pickletools.genops(pickled)]
    except (ValueError, EOFError, IndexError, UnicodeDecodeError, OverflowError, MemoryError):
        raise _malformed(what) from None
    named = {argument for name, argument in operations if name == "GLOBAL"}
    built = sum(name == "REDUCE" for name, _ in operations)
    if not {name for name, _ in operations} <= _OPERATIONS or not named <= _GLOBALS or built > _MAX_BUILT:
        raise _malformed(what)


def _array(tensor: object, plain: type[torch.Tensor], what: str) -> Array:
    if type(tensor) is not plain:
        raise _malformed(what)
    import torch

    known = {torch.float32: np.dtype("<f4"), torch.float64: np.dtype("<f8"), torch.int64: np.dtype("<i8")}
    if (
        tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or tensor.dtype not in known
        or tensor.is_quantized
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ):
        raise _malformed(what)
    found: Array = tensor.detach().contiguous().numpy()
    return found


def _table(arrays: Mapping[str, Array], what: str) -> TensorTable:
    if not {FEATURES, LABELS} <= set(arrays) <= {FEATURES, LABELS, SUBJECTS}:
        raise _malformed(what)
    features, labels, subjects = arrays[FEATURES], arrays[LABELS], arrays.get(SUBJECTS)
    numbers = [labels] if subjects is None else [labels, subjects]
    if (
        features.dtype.kind != "f"
        or features.ndim != 2
        or any(one.dtype != np.int64 or one.shape != features.shape[:1] for one in numbers)
    ):
        raise _malformed(what)
    return TensorTable(
        features.astype(np.float64),
        labels.astype(np.int64),
        None if subjects is None else subjects.astype(np.int64),
    )


def _malformed(what: str) -> HealthError:
    return HealthError(
        "health.tensor_file",
        f"{what} is not a plain file of features and labels.",
        "Write float features [records, columns] and int64 labels [records], by name, as .safetensors; or "
        "with torch.save as plain tensors.",
    )
