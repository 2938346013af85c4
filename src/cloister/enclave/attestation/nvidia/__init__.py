"""NVIDIA GPUs in confidential mode: SPDM measurements, device chains, reference manifests, OCSP answers."""
