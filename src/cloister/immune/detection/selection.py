"""Which detector judges: the tail detector, or one of two others for comparison."""

from __future__ import annotations

from cloister.immune.detection import fusion_detector, percentile_detector, tail_detector
from cloister.immune.detection.detector import Detector, DetectorSettings
from cloister.immune.errors import ImmuneError


def new_detector(kind: str, settings: DetectorSettings) -> Detector:
    """A detector that has learned nothing.

    Args:
        kind: ``tail``, ``l2-percentile`` or ``fusion``.
        settings: of any.

    Raises:
        ImmuneError: ``immune.setting_invalid`` for any other kind.
    """
    if kind == tail_detector.KIND:
        return tail_detector.TailDetector(settings)
    if kind == percentile_detector.KIND:
        return percentile_detector.PercentileDetector(settings)
    if kind == fusion_detector.KIND:
        return fusion_detector.FusionDetector(settings)
    raise ImmuneError(
        "immune.setting_invalid", f"there is no detector {kind!r}", "Take tail, l2-percentile or fusion."
    )


def read_detector(value: object, settings: DetectorSettings) -> Detector:
    """The detector of any kind that `Detector.as_json` wrote.

    Args:
        value: the document.
        settings: as they are now.

    Raises:
        ImmuneError: ``immune.baseline_damaged`` where it isn't such a document.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == percentile_detector.KIND:
        return percentile_detector.PercentileDetector.from_json(value, settings)
    if kind == fusion_detector.KIND:
        return fusion_detector.FusionDetector.from_json(value, settings)
    return tail_detector.TailDetector.from_json(value, settings)
