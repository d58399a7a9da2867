"""Fields of a CSV file: the numbers they spell, and what a column of them holds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# Fields that stand for a missing value: those of pandas.
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")

WHOLE = re.compile(r"[+-]?\d+")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}/\d{1,2}/\d{1,2}")


def number(field: str, decimal: str = ".") -> float | None:
    """The number that a field spells, or None; NaN where it stands for a missing value."""
    field = field.strip()
    if field in MISSING:
        return math.nan
    if decimal == ",":
        if "." in field:
            return None
        field = field.replace(",", ".")
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def by_column(rows: Sequence[Sequence[str]], n_fields: int) -> list[list[str]]:
    """The fields of each of `n_fields` columns; blank ones where a row is too short."""
    return [[row[j] if j < len(row) else "" for row in rows] for j in range(n_fields)]


def kind_of(column: Sequence[str], decimal: str) -> tuple[str, tuple[str, int] | None]:
    """What a column holds, and its first field that is no number."""
    fields = [field.strip() for field in column]
    given = [field for field in fields if field not in MISSING]
    if not given:
        return "blank", None
    if all(field in TRUE + FALSE for field in given):
        return "truth", None
    for row, field in enumerate(fields):
        if number(field, decimal) is None:
            return "dates" if _DATE.fullmatch(field) else "text", (field, row)
    return "number", None
