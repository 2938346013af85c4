"""Prints figures of the privacy room, section by section, beside peers measured in the same run.

Use: python benchmarks/privacy.py [--section engine|jax_peer|ledger|fed_heart|mnist] [--json]

Without a section all are measured; MNIST alone takes six minutes of CPU time. A section whose data or peer
isn't on this machine is skipped by name.
"""

from sections import measure_sections

if __name__ == "__main__":
    measure_sections(
        "privacy_parts", ("engine", "jax_peer", "ledger", "fed_heart", "mnist"), description=__doc__
    )
