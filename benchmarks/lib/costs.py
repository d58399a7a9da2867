"""The cost line of a kernel's docstring as a number: "count n (n + 1) flops" with count = 64, n = 10 is 7040."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[A-Za-z_]\w*|[()^*/+-]")
# A kernel that says what it costs; "operations" where they are of whole numbers.
SAYS_COST = re.compile(r"\b(?:flops|operations)\b")


def text_of(kernel: Callable[..., Any]) -> str:
    """A kernel's docstring in one line."""
    return " ".join((inspect.getdoc(getattr(kernel, "py_func", kernel)) or "").split())


def evaluate(formula: str, sizes: Mapping[str, float]) -> float:
    """The value of a formula in which factors stand side by side and ^ is a power.

    sizes : a number for each name; a name may have several words, and then stands in the formula as it is written here.

    Raises
    ------
    ValueError
        The formula has a name without a number, or is none.
    """
    for name in sorted(sizes, key=len, reverse=True):
        if " " in name:
            formula = formula.replace(name, repr(float(sizes[name])))
    tokens = _TOKEN.findall(formula)
    written = ""
    for before, token in zip(["(", *tokens], tokens):
        if before not in "(^*/+-" and token not in ")^*/+-":
            written += "*"
        written += "**" if token == "^" else token
    names = {token for token in tokens if token[0].isalpha()}
    if names - set(sizes):
        raise ValueError(f"{formula!r} has no number for {', '.join(sorted(names - set(sizes)))}")
    try:
        return float(eval(written, {"__builtins__": {}}, dict(sizes)))
    except SyntaxError as error:
        raise ValueError(f"{formula!r} is no formula") from error


def cost(kernel: Callable[..., Any], formula: str, sizes: Mapping[str, float]) -> float:
    """`evaluate` of a formula that stands in the kernel's docstring.

    Raises
    ------
    ValueError
        It does not stand there.
    """
    if formula not in text_of(kernel):
        raise ValueError(f"the docstring of {kernel.__name__} does not say {formula!r}")
    return evaluate(formula, sizes)
