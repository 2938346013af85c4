"""The sections of benchmarks/evidence.py."""
