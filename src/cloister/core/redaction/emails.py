"""Email addresses, by the ``@`` in them.

Rules this module keeps:

* A domain is read forwards from the ``@`` and a local part backwards, both bounded. So time is linear.
* A local part is what RFC 5322 allows (atext, dots, a quoted string), in letters of any script (RFC 6531);
  what a query or an assignment puts before it (``to=``) isn't part of it.
* A domain ends in a label that starts with a letter, or is an address in brackets. Units of systemd
  (``user@1000.service``) and pictures (``icon@2x.png``) aren't addresses.
* Spelled out (``jane [at] example [dot] org``, ``jane @ example.org``) it is found too.
"""

from __future__ import annotations

from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.patterns import pattern

_LONGEST = 320
_ATEXT = r"\w.!#$%&'*+/=?^`{|}~\-"
_DOMAIN = r"(?:[\w-]{1,63}\.){1,126}[^\W\d_](?:[\w-]{0,61}[^\W_])"
_AT = pattern(rf"@(?<=[{_ATEXT}\"]@)(?:({_DOMAIN})|\[[0-9A-Fa-f.:IPv]{{4,50}}\])")
# What a query or an assignment may put before it is left out, unless nothing else is there.
_BACKWARDS = pattern(r"[\w.!$%'*+^`~-]+")
_ODD_BACKWARDS = pattern(rf"[{_ATEXT}]+")
_QUOTED_BACKWARDS = pattern(r'"[^"\n\\]{1,64}"')
_NO_DOMAIN = pattern(
    r"(?i)\.(?:service|slice|socket|mount|automount|swap|timer|target|scope|path|device"
    r"|png|jpe?g|gif|svg|webp)\Z"
)
_QUOTES = "'.`*!$^"
_COMMON = r"(?:com|org|net|edu|gov|mil|int|info|health|io|co|[a-z]{2})"
_SPACED = pattern(rf"(?i)(?<![\w.+-])[\w.+-]++\ @\ (?:[\w-]{{1,63}}\.){{1,5}}{_COMMON}(?![\w.-]*\w)")
_SPELLED = pattern(
    r"(?i)(?<![\w.+-])[\w.+-]++(?:\s?[\[({<]\s?(?:at|@)\s?[\])}>]\s?|\sat\s)"
    r"(?:[\w-]{1,63}(?:\s?[\[({<]\s?(?:dot|\.)\s?[\])}>]\s?|\sdot\s|\.)){1,5}"
    rf"(?:{_COMMON}(?!\w)|[a-z]{{2,24}}(?!\w))"
)
_AT_OR_DOT = pattern(r"(?i)[\[({<]\s?(?:at|@)|\sdot\s")


def find(text: str, lower: str, found: list[Span]) -> None:
    """Add where email addresses stand.

    Args:
        text: what is searched.
        lower: the same in small letters, of the same length.
        found: what is added to.
    """
    if "@" in text:
        earlier = 0
        for one in _AT.finditer(text):
            at, end = one.span()
            domain = one[1]
            if domain is None or _NO_DOMAIN.search(domain) is None:
                found.append((_begin(text, max(earlier, at - _LONGEST), at), end, Kind.EMAIL))
            earlier = end
        if " @ " in text:
            found.extend((*one.span(), Kind.EMAIL) for one in _SPACED.finditer(text))
    if (
        " dot " in lower
        or "at]" in lower
        or "at)" in lower
        or "at }" in lower
        or "at ]" in lower
        or "at )" in lower
    ):
        found.extend(
            (*one.span(), Kind.EMAIL)
            for one in _SPELLED.finditer(text)
            if _AT_OR_DOT.search(one.group()) is not None
        )


def _begin(text: str, least: int, at: int) -> int:
    """Where the local part before an ``@`` begins."""
    backwards = text[least:at][::-1]
    if not backwards:
        return at
    if backwards[0] == '"':
        quoted = _QUOTED_BACKWARDS.match(backwards)
        return at - 1 if quoted is None else at - quoted.end()
    reach = _BACKWARDS.match(backwards) or _ODD_BACKWARDS.match(backwards)
    if reach is None:
        return at
    local = reach.group()
    return at - len(local.rstrip(_QUOTES) or local)
