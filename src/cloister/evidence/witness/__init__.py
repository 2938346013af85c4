"""Checkpoints held outside the log they are of: witnesses, books of checkpoints, and proofs between them."""
