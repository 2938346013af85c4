"""The sections of ``benchmarks/immune.py``: modules with ``measure(share) -> Figures``."""
