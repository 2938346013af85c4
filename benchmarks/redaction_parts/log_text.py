"""Made-up log lines, SQL, JSON and prose; 15 % of them end with personal data. The same for the same seed."""

from __future__ import annotations

import random


def log_lines(count: int, seed: int = 1) -> list[str]:
    """So many lines."""
    chance = random.Random(seed)
    return [_line(chance) + _personal(chance) for _ in range(count)]


def _personal(chance: random.Random) -> str:
    number = chance.randrange(1001, 9999)
    said = f"jane.doe{number}@example.org", f"415-555-{number}", f"219-05-{number}", f"10.1.2.{number % 256}"
    return f" from {chance.choice(said)}" if chance.random() < 0.15 else ""


def _line(chance: random.Random) -> str:
    hexadecimal = chance.randbytes
    stamp = f"2026-11-22T10:{chance.randrange(60):02}:{chance.randrange(60):02}.{chance.randrange(10**6):06}Z"
    large, small = chance.randrange(10**6), chance.randrange(3000)
    uuid = "-".join(hexadecimal(size).hex() for size in (4, 2, 2, 2, 6))
    return chance.choice(
        (
            f"{stamp} INFO request_id={hexadecimal(16).hex()} took {chance.random() * 100:.3f} ms status=200",
            f'{{"timestamp":"{stamp}","level":"info","event":"round.finished","epsilon":{chance.random()!r}}}',
            f"SELECT id, name FROM orders WHERE id = {large} AND made_at > '2026-11-02 10:11:12' LIMIT 100",
            f"{stamp} ERROR core/hashes.py:{small}: sha256:{hexadecimal(32).hex()} differs, attempt 2",
            f"The job was tried again after the peer had gone; version 4.17.{small % 99}.1 {large} rows.",
            f'{stamp} WARN http {uuid} "GET /api/v1/items/{large} HTTP/1.1" 404 {small} {large}',
        )
    )
