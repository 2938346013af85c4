"""The mapping from statements to a regulation's clauses: one data file, read strictly.

``clauses.json`` has two parts: kinds of evidence (which statements, under which conditions, show what and
don't show what), and the clauses of each regulation with the kinds that bear on them.

Rules kept here:

1. A kind names a predicate type that this program knows, and conditions on fields that this predicate has.
2. Each clause says why its evidence bears on it and where that ends, or why software can't evidence it.
3. What isn't used, or is named and not defined, is refused: the file has nothing that nobody reads.
4. The file says when and by whom it was reviewed, against which texts, and who didn't review it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cloister.core.canonical import parse
from cloister.core.errors import CloisterError
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import Predicate, predicate_class
from cloister.evidence.predicates.base import TYPE_PREFIX

CLAUSES_FILE: Final = "clauses.json"
_MAX_BYTES: Final = 1024 * 1024
_QUANTIFIERS: Final = ("every", "any")

Scalar = bool | int | str
Text = Annotated[str, StringConstraints(min_length=3, max_length=600, strip_whitespace=True)]
KindId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{2,40}$")]


class RegulationId(StrEnum):
    """The regulations that are mapped."""

    DPDP = "dpdp"
    HIPAA = "hipaa"
    GDPR = "gdpr"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EvidenceKind(_Closed):
    """Statements that show one thing.

    Attributes:
        predicate: the predicate type, without the common prefix, such as ``consent:v1``.
        where: conditions that a statement has to meet: by field name a value, or a list of possible values;
            ``field.every.part`` and ``field.any.part`` ask it of the elements of a list.
        shows: what such a statement shows.
        not_shown: what it doesn't show.
    """

    predicate: Annotated[str, StringConstraints(pattern=r"^[a-z-]+:v[0-9]+$")]
    where: dict[str, Scalar | tuple[Scalar, ...]]
    shows: Text
    not_shown: Text

    @property
    def predicate_type(self) -> str:
        """The full predicateType URI."""
        return TYPE_PREFIX + self.predicate

    def fits(self, predicate: Predicate) -> bool:
        """Whether a statement is of this kind."""
        if self.predicate_type != predicate.TYPE:
            return False
        return all(_meets(predicate, path, wanted) for path, wanted in self.where.items())


class Clause(_Closed):
    """One clause of a regulation.

    Attributes:
        clause: its number, as lawyers cite it.
        title: its title.
        asks: what it asks, in our own words; the law's text is what counts.
        evidence: the kinds of evidence that bear on it; none if software can't evidence it.
        attention: the kinds of statement that whoever judges the clause should look at.
        reason: why the evidence bears on the clause and where that ends, or why there can be none.
    """

    clause: Annotated[str, StringConstraints(min_length=3, max_length=40)]
    title: Text
    asks: Text
    evidence: tuple[KindId, ...]
    attention: tuple[KindId, ...]
    reason: Text


class Regulation(_Closed):
    """A regulation's clauses.

    Attributes:
        title: its name.
        source: where it stands.
        scope: which clauses were mapped, and which questions are for lawyers.
        sources: which texts the mapping was reviewed against, and which are not in it.
        clauses: the clauses, in the order of the law.
    """

    title: Text
    source: Text
    scope: Text
    sources: tuple[Text, ...] = Field(min_length=1)
    clauses: tuple[Clause, ...] = Field(min_length=1)


class Review(_Closed):
    """The last review of the mapping; each regulation names the texts it was held against.

    Attributes:
        on: the day.
        by: who reviewed, and who didn't.
        limits: what the review didn't look at.
    """

    on: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    by: Text
    limits: Text


class ClauseFile(_Closed):
    """The whole data file."""

    schema_: Literal["urn:cloister:regulation-clauses:v1"] = Field(alias="schema")
    review: Review
    note: Text
    kinds: dict[KindId, EvidenceKind]
    regulations: dict[RegulationId, Regulation]


@cache
def load_clauses() -> ClauseFile:
    """The mapping that travels with the program.

    Raises:
        EvidenceError: ``evidence.mapping_malformed``.
    """
    return read_clauses(resources.files("cloister.evidence.regulation").joinpath(CLAUSES_FILE).read_bytes())


def load_regulation(regulation: RegulationId) -> Regulation:
    """One regulation of the mapping that travels with the program."""
    return load_clauses().regulations[regulation]


def read_clauses(data: bytes) -> ClauseFile:
    """Read and check a mapping.

    Args:
        data: the data file.

    Returns:
        The mapping.

    Raises:
        EvidenceError: ``evidence.mapping_malformed``, with every finding in ``details``.
    """
    try:
        value = parse(data, max_bytes=_MAX_BYTES)
    except CloisterError as error:
        raise _malformed([error.message]) from error
    try:
        mapping = ClauseFile.model_validate(value)
    except ValidationError as error:
        raise _malformed([".".join(map(str, one["loc"])) for one in error.errors()]) from None
    findings = [*_kind_findings(mapping.kinds), *_clause_findings(mapping)]
    if findings:
        raise _malformed(findings)
    return mapping


def _kind_findings(kinds: Mapping[str, EvidenceKind]) -> Iterator[str]:
    for name, kind in kinds.items():
        try:
            predicate = predicate_class(kind.predicate_type)
        except EvidenceError:
            yield f"kind {name}: {kind.predicate} is not a known predicate"
            continue
        yield from (
            f"kind {name}: {path} is no field of {kind.predicate}"
            for path in kind.where
            if not _has_path(predicate, path.split("."))
        )


def _clause_findings(mapping: ClauseFile) -> Iterator[str]:
    used: set[str] = set()
    for name, regulation in mapping.regulations.items():
        numbers = [one.clause for one in regulation.clauses]
        yield from (f"{name}: {one} is there twice" for one in sorted(set(numbers)) if numbers.count(one) > 1)
        for clause in regulation.clauses:
            named = (*clause.evidence, *clause.attention)
            used.update(named)
            yield from (
                f"{name} {clause.clause}: {one} is not defined" for one in named if one not in mapping.kinds
            )
            if len(set(named)) != len(named):
                yield f"{name} {clause.clause}: a kind is named twice"
    yield from (f"kind {one} is used nowhere" for one in sorted(mapping.kinds.keys() - used))


def _has_path(model: type[BaseModel], path: list[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    if len(path) == 1:
        return True
    parts = [
        one for one in get_args(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)
    ]
    return len(path) == 3 and path[1] in _QUANTIFIERS and bool(parts) and path[2] in parts[0].model_fields


def _meets(predicate: Predicate, path: str, wanted: Scalar | tuple[Scalar, ...]) -> bool:
    name, _, rest = path.partition(".")
    value: object = getattr(predicate, name)
    if not rest:
        return _equals(value, wanted)
    quantifier, _, part = rest.partition(".")
    elements = value if isinstance(value, tuple) else ()
    found = [_equals(getattr(element, part), wanted) for element in elements]
    return bool(found) and (all(found) if quantifier == "every" else any(found))


def _equals(value: object, wanted: Scalar | tuple[Scalar, ...]) -> bool:
    options = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(type(value) is type(one) and value == one for one in options)


def _malformed(findings: list[str]) -> EvidenceError:
    return EvidenceError(
        "evidence.mapping_malformed",
        f"The mapping of clauses is not sound: {findings[0].rstrip('.')}.",
        "Restore the file that came with this program.",
        details=findings,
    )
