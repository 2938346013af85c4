"""Documents people write, in YAML, read strictly.

Rules this module keeps:

* YAML means the JSON-like part of YAML 1.2: ``true``/``false``, ``null``, decimal numbers (``1e-5`` is one),
  text, lists and mappings with text keys. ``yes``, ``012`` and dates stay text; tags of other kinds, aliases,
  merge keys, duplicate keys, infinities and a second document are refused.
* Size and depth are bounded before anything is built.
* An error names the line; it never shows what was written there.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cloister.core.canonical import JSON, MAX_SAFE_INTEGER
from cloister.core.errors import InputError
from cloister.core.files import read_bounded

MAX_YAML_BYTES = 1024 * 1024
MAX_YAML_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Refused(Exception):  # noqa: N818 - carried from the depth of the parser to `load_yaml` only
    def __init__(self, code: str, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.line = line


class _Loader(yaml.SafeLoader):
    """Composes a node tree; conversion to values is `_value`'s, so no constructor of the library runs."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str, max_depth: int) -> None:
        super().__init__(text)
        self._depth = 0
        self._max_depth = max_depth

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _Refused("input.syntax", "an alias (*name) is not allowed", self.line + 1)
        self._depth += 1
        if self._depth > self._max_depth:
            raise _Refused("input.too_large", f"nested deeper than {self._max_depth} levels", None)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"(null|Null|NULL|~|)\Z"), None)
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), None)
_Loader.add_implicit_resolver(_TAG + "int", re.compile(rf"({_INTEGER.pattern})\Z"), None)
_Loader.add_implicit_resolver(_TAG + "float", re.compile(rf"({_FLOAT.pattern})\Z"), None)


def load_yaml(
    source: Path | bytes,
    *,
    name: str = "The document",
    max_bytes: int = MAX_YAML_BYTES,
    max_depth: int = MAX_YAML_DEPTH,
) -> JSON:
    """Read one YAML document as plain JSON values.

    Args:
        source: a file, or the document itself in UTF-8.
        name: what errors call a document that was handed in; a file has its path.
        max_bytes: the largest size in bytes that is read.
        max_depth: how deep lists and mappings may nest.

    Raises:
        InputError: ``input.missing_file``, ``input.unreadable``, ``input.too_large``, ``input.syntax``,
            ``input.duplicate_key`` or ``input.not_json``.
    """
    name = str(source) if isinstance(source, Path) else name
    data = read_bounded(source, max_bytes) if isinstance(source, Path) else source
    if len(data) > max_bytes:
        raise InputError("input.too_large", f"{name} is larger than {max_bytes} bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("input.syntax", f"{name} is not UTF-8 (byte {error.start}).") from None
    try:
        loader = _Loader(text, max_depth)
        node = loader.get_single_node()
        return None if node is None else _value(node)
    except _Refused as refused:
        place = f" (line {refused.line})" if refused.line else ""
        raise InputError(refused.code, f"{name}: {refused.reason}{place}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InputError("input.syntax", f"{name} is not well-formed YAML{place}.") from None
    except RecursionError:
        raise InputError("input.too_large", f"{name}: nested deeper than {max_depth} levels.") from None


def _value(node: Node) -> JSON:
    if isinstance(node, MappingNode) and node.tag == _TAG + "map":
        members: dict[str, JSON] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag != _TAG + "str":
                raise _Refused("input.syntax", "a key is not text; put it in quotes", _line(key))
            if key.value == "<<":
                raise _Refused("input.syntax", "a merge key (<<) is not allowed", _line(key))
            if key.value in members:
                raise _Refused("input.duplicate_key", "a key is given twice", _line(key))
            members[key.value] = _value(value)
        return members
    if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item) for item in node.value]
    if isinstance(node, ScalarNode):
        return _scalar(node)
    raise _Refused("input.syntax", "a tag of this kind is not allowed", _line(node))


def _line(node: Node) -> int | None:
    return None if node.start_mark is None else node.start_mark.line + 1


def _scalar(node: ScalarNode) -> JSON:
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "str":
            return text
        case "null" if text in ("null", "Null", "NULL", "~", ""):
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int" if _INTEGER.fullmatch(text) and len(text) <= 17 and abs(int(text)) <= MAX_SAFE_INTEGER:
            return int(text)
        case "float" if _FLOAT.fullmatch(text) and len(text) <= 64:
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if abs(number) < float("inf"):
                return number
            raise _Refused("input.not_json", "a number is NaN or infinite", _line(node))
        case "int" | "float":
            raise _Refused("input.not_json", "a number is out of range", _line(node))
        case _:
            raise _Refused("input.syntax", "a tag of this kind is not allowed", _line(node))
