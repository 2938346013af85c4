"""How unusual a call of a function is, learned from its earlier calls.

`TailDetector` judges by tail probabilities. `PercentileDetector`, the seed's, and `FusionDetector`, an
average of several kinds of signals, are there for comparison.
"""

from __future__ import annotations

from cloister.immune.detection.detector import Detector, DetectorSettings, Summary
from cloister.immune.detection.features import FEATURES
from cloister.immune.detection.fusion import Signals, signals_of
from cloister.immune.detection.fusion_detector import FusionDetector
from cloister.immune.detection.percentile_detector import PercentileDetector
from cloister.immune.detection.score import Calibration, Scale
from cloister.immune.detection.selection import new_detector, read_detector
from cloister.immune.detection.tail_detector import TailDetector
from cloister.immune.detection.tail_table import TailTable

__all__ = [
    "FEATURES",
    "Calibration",
    "Detector",
    "DetectorSettings",
    "FusionDetector",
    "PercentileDetector",
    "Scale",
    "Signals",
    "Summary",
    "TailDetector",
    "TailTable",
    "new_detector",
    "read_detector",
    "signals_of",
]
