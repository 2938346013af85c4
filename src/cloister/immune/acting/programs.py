"""Which program an operation starts: its name and never its arguments, which may be about a person.

A shell is no program of its own: it is named with the programs of its command line, ``sh: gzip, tar``. The
line is split by the shell's rules (POSIX.1-2024, shell command language, 2.2, 2.7 and 2.9); what is quoted
isn't looked into, but a line with a substitution in it says so: ``sh: tar, $()``. A line that can't be split,
or that holds a document, is ``sh: ?``.

Limits: an interpreter's own language (``python -c``), ``env``, ``xargs``, ``find -exec``, and a PATH that
leads elsewhere aren't looked through.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox", "rbash"})
_LONGEST: Final = 10_000
_KEYWORDS: Final = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"})
# Each alternative begins with other characters than the next ones, so that splitting takes linear time.
_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r]+|\\\n|\#[^\n]*)
      | (?P<document><<-?(?!<))
      | (?P<break>[<>]\(|[;|()\n]+|&(?!>))
      | (?P<redirection>[0-9]*(?:&>>?|<<<|>>|>\||[<>]&|<>|[<>]))
      | (?P<word>(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s;&|()<>'"\\])+)""",
    re.VERBOSE | re.DOTALL,
)
_QUOTING: Final = re.compile(r"""\\(.)|['"]""", re.DOTALL)


def program(executable: object, arguments: object, folder: object = None) -> str:
    """The target of starting a program.

    Args:
        executable: its name or path; None takes the first argument.
        arguments: the argument vector, the program's own name first; a text is a name only.
        folder: what a relative path starts from; None is the current folder.

    Returns:
        A name without a slash as it is, a path from the root, or a shell with the programs of its line.
    """
    words = [_text(word) for word in arguments] if isinstance(arguments, list | tuple) else [_text(arguments)]
    name = _text(executable) if executable is not None else words[0]
    if "/" in name:
        base = os.getcwd() if folder is None else _text(folder)  # noqa: PTH109 - texts throughout
        name = os.path.normpath(os.path.join(base, name))  # noqa: PTH118
    kind = name.rpartition("/")[2]
    if kind not in _SHELLS:
        return name
    line = _line(words)
    return f"{name} (a script)" if line is None else shell_line(line, kind)


def shell_line(line: object, shell: str = "sh") -> str:
    """The target of a shell's command line: ``sh: gzip, tar``."""
    text = _text(line)
    if len(text) > _LONGEST:
        return f"{shell}: ?"
    try:
        names = sorted(set(_started(text)))
    except ValueError:
        return f"{shell}: ?"
    # Behind quotes of any kind: an unused one costs a name of its own, an unseen one would be a way around.
    if "$(" in text or "`" in text or "<(" in text or ">(" in text:
        names.append("$()")
    return f"{shell}: {', '.join(names)}"


def _line(words: Sequence[str]) -> str | None:
    for position, word in enumerate(words[1:-1], 1):
        if word.startswith("-") and not word.startswith("--") and "c" in word:
            return words[position + 1]
    return None


def _started(line: str) -> Iterator[str]:
    first, redirected, at = True, False, 0
    while at < len(line):
        token = _TOKEN.match(line, at)
        if token is None or token.lastgroup == "document":
            raise ValueError("a quotation without an end, or a document")
        at = token.end()
        match token.lastgroup:
            case "break":
                first, redirected = True, False
            case "redirection":
                redirected = True
            case "word" if redirected:
                redirected = False
            case "word" if first and token[0] not in _KEYWORDS and not _assigns(token[0]):
                first = False
                yield _QUOTING.sub(lambda quoted: quoted[1] or "", token[0])[:64]


def _assigns(token: str) -> bool:
    name, equals, _ = token.partition("=")
    return bool(equals) and name.isidentifier()


def _text(value: object) -> str:
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    raise TypeError("a program's name is a text")
