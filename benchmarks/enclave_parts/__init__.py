"""The sections of ``benchmarks/enclave.py``."""
