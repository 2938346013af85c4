"""The immune system under its short name: ``import pic`` and ``@pic.monitor``. It is `cloister.immune`."""

from cloister.immune import CallBlocked, EgressBlocked, instrument, monitor, present, protect

__all__ = ["CallBlocked", "EgressBlocked", "instrument", "monitor", "present", "protect"]
