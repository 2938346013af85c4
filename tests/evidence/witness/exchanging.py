"""The synthetic job with its parties' logs written side by side, so that each holds the others' heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest

from cloister.core.keys import Signer
from cloister.evidence import EvidenceLog, LogExtract, Predicate, Role, StatementWriter, Subject, log_origin
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.predicates import (
    BudgetSpend,
    CheckpointHeld,
    HeldCheckpoint,
    HubEnding,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.predicates.log import to_be_held
from cloister.evidence.witness.links import ConsistencyLink, consistency_links
from tests.evidence.synthetic import HUB, OTHER_JOB_ID, Step, SyntheticJob, ticking

Edit = Callable[[str, list[Step]], list[Step]]


def as_planned(party: str, steps: list[Step]) -> list[Step]:
    return steps


@dataclass
class Pen:
    """One party's open log and its writer."""

    log: EvidenceLog
    writer: StatementWriter

    def say(self, job: SyntheticJob, steps: Iterable[Step]) -> None:
        for kind, fields in steps:
            self.writer.write(kind, [Subject(f"job {job.job_id}", job.job_sha256)], **fields)


@dataclass
class ExchangingJob(SyntheticJob):
    """The job; `edit` changes what a party states, `see` what it is shown of another's log."""

    edit: Edit = as_planned
    see: Callable[[str, int, Checkpoint], Checkpoint | None] = lambda holder, number, head: head
    links: list[ConsistencyLink] = field(default_factory=list)

    def run(self) -> ExchangingJob:
        with ExitStack() as opened:
            self._write({name: opened.enter_context(self._log(name)) for name in (HUB, *self.sites)})
        return self

    def _log(self, name: str) -> EvidenceLog:
        role, key = (Role.HUB, "hub") if name == HUB else (Role.SITE, f"site-{name}")
        path = self.folder / f"{name}.sqlite"
        log = EvidenceLog.create(path, origin=log_origin(role, name), signer=self.keys[key])
        StatementWriter(log, self.keys[key], name, OTHER_JOB_ID, ticking()).close("completed")
        return log

    def _write(self, logs: Mapping[str, EvidenceLog]) -> None:
        pens = {
            name: Pen(log, StatementWriter(log, self._key(name), name, self.job_id, ticking()))
            for name, log in logs.items()
        }
        parts = {
            name: _parts(self.edit(name, self.hub_steps()), RoundAggregated)
            if name == HUB
            else _parts(self.edit(name, self.site_steps(name)), BudgetSpend)
            for name in logs
        }
        for name, pen in pens.items():
            pen.say(self, parts[name][0])
        rounds = zip_longest(*(parts[name][1:] for name in (*self.sites, HUB)), fillvalue=[])
        for number, steps in enumerate(rounds):
            for site, own in zip(self.sites, steps[:-1], strict=True):
                shown = self._shown(site, number, [logs[HUB].checkpoint()])
                pens[site].say(self, [_naming(step, shown) for step in own])
            held = self._shown(HUB, number, [logs[site].checkpoint() for site in self.sites])
            if held:
                pens[HUB].say(self, [(CheckpointHeld, {"round": number, "held": held})])
            pens[HUB].say(self, steps[-1])
        ended, hub = pens[HUB].writer.close("completed"), logs[HUB]
        shown = HubEnding(
            statement_sha256=ended.sha256, origin=hub.origin, size=hub.size, root=hub.root_at(hub.size).hex()
        )
        for site in self.sites:
            pens[site].writer.close("completed", hub_ending=shown)
        self.extracts = {name: log.extract(self.job_id) for name, log in logs.items()}
        by_origin: dict[str, LogExtract] = {one.origin: one for one in self.extracts.values()}
        of_origin = {log.origin: log for log in logs.values()}
        self.links = consistency_links(
            by_origin, lambda origin, old, new: of_origin[origin].consistency_proof(old, new)
        )

    def _key(self, name: str) -> Signer:
        return self.keys["hub" if name == HUB else f"site-{name}"]

    def _shown(self, holder: str, number: int, heads: list[Checkpoint]) -> list[HeldCheckpoint]:
        shown = [self.see(holder, number, head) for head in heads]
        return [to_be_held(one) for one in shown if one is not None]

    def receipt(self, **replaced: object) -> bytes:
        return super().receipt(**{"consistency": self.links, **replaced})


def _naming(step: Step, shown: list[HeldCheckpoint]) -> Step:
    """An update names what its site was shown of the hub's log in its round; without that it says nothing."""
    kind, fields = step
    return (kind, {**fields, "hub_log": shown[0]}) if kind is UpdateReleased and shown else step


def _parts(steps: list[Step], kind: type[Predicate]) -> list[list[Step]]:
    """The steps before the first of a kind, then from each of them to the next."""
    parts: list[list[Step]] = [[]]
    for step in steps:
        if step[0] is kind:
            parts.append([])
        parts[-1].append(step)
    return parts
