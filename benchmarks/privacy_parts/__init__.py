"""Sections of the privacy benchmark: one module each, with ``measure`` and ``table``."""
