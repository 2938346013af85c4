"""Federated jobs on NVIDIA FLARE."""
