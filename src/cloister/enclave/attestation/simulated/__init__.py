"""Simulated hardware: real layouts and real signatures under roots that say they're simulated."""
