"""The local audit stream: many events a second, each chained, tagged, and soon signed elsewhere."""

from __future__ import annotations

from cloister.evidence.segments.checkpoint import HeldCheckpoints, SegmentCheckpoint, parse_held
from cloister.evidence.segments.directory import StreamVerdict, verify_directory
from cloister.evidence.segments.flow import EntryReceipt, Ticket
from cloister.evidence.segments.layout import Cipher, Header, SegmentId
from cloister.evidence.segments.limits import SegmentLimits
from cloister.evidence.segments.reading import SegmentEntry, read_entries
from cloister.evidence.segments.secrets import OpeningKey, OpeningKeys, SealingKey
from cloister.evidence.segments.sinks import CheckpointSink, DescriptorSink, FileSink
from cloister.evidence.segments.verdict import Ending, SegmentVerdict
from cloister.evidence.segments.verify import verify_segment
from cloister.evidence.segments.writer import SegmentWriter

__all__ = [
    "CheckpointSink",
    "Cipher",
    "DescriptorSink",
    "Ending",
    "EntryReceipt",
    "FileSink",
    "Header",
    "HeldCheckpoints",
    "OpeningKey",
    "OpeningKeys",
    "SealingKey",
    "SegmentCheckpoint",
    "SegmentEntry",
    "SegmentId",
    "SegmentLimits",
    "SegmentVerdict",
    "SegmentWriter",
    "StreamVerdict",
    "Ticket",
    "parse_held",
    "read_entries",
    "verify_directory",
    "verify_segment",
]
