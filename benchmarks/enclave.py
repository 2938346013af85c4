"""Prints figures of the enclave room, section by section.

Use: python benchmarks/enclave.py [--section attestation|release|airlock|sealed|inference] [--json]

Without a section all are measured. A section that this machine can't run is skipped by name.
"""

from sections import measure_sections

if __name__ == "__main__":
    measure_sections(
        "enclave_parts", ("attestation", "release", "airlock", "sealed", "inference"), description=__doc__
    )
