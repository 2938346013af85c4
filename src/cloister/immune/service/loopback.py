"""Whether an address is this machine's own."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and can be reached from it alone (RFC 6890: 127.0.0.0/8 and ::1)."""
    return host in ("localhost", "::1") or (host.startswith("127.") and _is_ipv4(host))


def _is_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts)
