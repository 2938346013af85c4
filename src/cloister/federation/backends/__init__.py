"""Where a compiled job runs: back ends behind one port."""
