"""Audits of the privacy that is claimed: conformance of the trainer, canaries, attacks. None of it trains.

Nothing here is used on the way of a job. The conformance suite is the gate; the others are evidence beside
it: an attack that fails proves nothing.
"""
