"""Numbers of bytes as people write and read them."""

from __future__ import annotations

import math
import re

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_SIZE = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:e\+?\d+)?)\s*(?:([kmgtp])(i?))?b?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int | None:
    """Bytes: k, M, G, T, P are powers of 1000, Ki, Mi, Gi, Ti, Pi powers of 1024; None where it is no size above zero.

    The same text means the same on the command line and in Python; `validation.memory_bytes` takes numbers as well.

    >>> parse_bytes("2GB"), parse_bytes("2g"), parse_bytes("1.5 GiB"), parse_bytes("4096"), parse_bytes("lots")
    (2000000000, 2000000000, 1610612736, 4096, None)
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    power = "kmgtp".index(match[2].lower()) + 1 if match[2] else 0
    size = float(match[1]) * (1024 if match[3] else 1000) ** power
    return int(size) or None if math.isfinite(size) else None


def format_bytes(count: float, *, at_least: bool = False) -> str:
    """Three digits and a unit in powers of 1000, such as "47 MB"; `parse_bytes` reads it.

    at_least : round up, for the memory that is needed: a limit set to the printed figure is then enough

    >>> format_bytes(512), format_bytes(47_040_000), format_bytes(1001, at_least=True)
    ('512 B', '47 MB', '1.01 kB')
    """
    for power in range(len(_UNITS)):
        scaled = count / 1000**power
        digits = 0 if not power or scaled >= 100 else 1 if scaled >= 10 else 2  # there is no part of a byte
        steps = scaled * 10**digits
        rounded = (math.ceil(steps) if at_least else round(steps)) / 10**digits
        if rounded < 1000:
            break
    return f"{rounded:.15g} {_UNITS[power]}"
