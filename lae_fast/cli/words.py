"""Messages of the library in the words of the command line: options in place of keywords, INPUT in place of X.

The library speaks to those who call it from Python.  Here, in one place, its messages are turned into what was typed or
may be typed.  An edge, like cli.py; the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

_QUOTES = "'\""
# Not a part of a path, of a dotted name or of something quoted.
_BEFORE, _AFTER = r"(?<![\w./\\'\"-])", r"(?![\w/\\'\"-]|[.:]\w)"
# 'text', "it's", (a tuple), [a list], 12.5 MB, or one word
_VALUE = r"('[^']*'|\"[^\"]*\"|\([^()]*\)|\[[^\[\]]*\]|[\d.]+ [kMGTP]?B\b|[\w.+-]*\w)"

_PHRASES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r" with svd_solver='full' or 'auto'", ""),  # nobody typed them
    (rf", or \w+={_VALUE} of lae_fast\.TableFile", ""),  # the option stands before it
    (
        r"^separator and decimal are both ',': they must differ",
        "--separator , does not go with --decimal-comma: numbers and fields would be cut by the same character",
    ),
    (r"PCA\(missing='em'\), the only estimator", "lae-fast pca --missing em, the only command"),
    (r"PCA\(missing='em'\)", "lae-fast pca --missing em"),
    (r"pass lae_fast\.losses\.(\w+)\(([^()]*)\) instead of the string", r"type --loss losses.\1(\2)"),
    (r"losses\.(\w+)\(([^()]*)\)", lambda found: f"{found[1]}:{found[2].replace(' ', '')}"),
    (
        r"must be between [01] and min\(n_samples, n_features\)=(\d+)",
        r"must be at most \1, the smaller of the numbers of rows and columns",
    ),
    (r"needs reference=, the true directions \(q, p\) in columns", "needs --reference FILE"),
    (r"cannot be a string with", "does not go with"),
    (r"\bmin\(n_features, n_targets\)=", "the number of columns, "),
    (r"\bhas n_samples=(\d+)", r"has \1 row(s)"),
    (r" \(n_samples=\d+, n_features=\d+\)", ""),
    (r"\bmin\(n_samples, n_features - 1\)=(\d+)", r"\1, fewer than rows or columns are,"),
    (r"\bn_samples\b", "rows"),
    (r"\bn_features\b", "columns"),
    (r"Pass X\.real, or real", "Pass real"),
    (r"Reshape your data with array\.reshape.*", "Rows are samples and columns are features."),
    (r"raise n_oversamples, ", ""),  # there is no option for it
    # Components are numbered from 1 in the tables of the commands.
    (
        r"component (\d+) \(counting from 0\)(?: with alignment_residuals_\[\d+\] =)?",
        lambda found: (
            f"component {int(found[1]) + 1}" + (", whose alignment residual is" if "with" in found[0] else "")
        ),
    ),
    (
        r"components ((?:\d+, )*\d+)((?:, \.\.\.)?) \(counting from 0\)",
        lambda found: f"components {', '.join(str(int(i) + 1) for i in found[1].split(', '))}{found[2]}",
    ),
)


def translated(message: str, flags: Mapping[str, str]) -> str:
    """The message with options in place of the library's parameters.

    flags : of the command, such as "--max-memory", by the library's name of the parameter

    >>> translated("max_memory=1 kB is too small for X: raise max_memory", {"max_memory": "--max-memory"})
    '--max-memory 1 kB is too small for INPUT: raise --max-memory'
    """
    for pattern, words in _PHRASES:
        message = re.sub(pattern, words, message)
    for name, flag in flags.items():
        message = re.sub(f"{_BEFORE}{name}={_VALUE}", partial(_typed_value, flag), message)
        message = re.sub(f"^{name}: ", f"{flag}: ", message)  # as `tables.chosen` begins
        if "_" in name or name == "tol":  # the others are words of English too
            message = re.sub(f"{_BEFORE}{name}{_AFTER}", flag, message)
    message = re.sub(f"{_BEFORE}Input X{_AFTER}", "INPUT", message)
    return re.sub(f"{_BEFORE}X{_AFTER}", "INPUT", message)


def _typed_value(flag: str, found: re.Match[str]) -> str:
    return _typed(flag, found[1])


def _typed(flag: str, value: str) -> str:
    """The option with a value as it is written in Python."""
    on, _, off = flag.partition("/")  # --header/--no-header
    word = value.strip(_QUOTES)
    if off:
        return {"True": on, "False": off, "None": f"neither {on} nor {off}"}.get(value, f"{on} {word}")
    if value.startswith("["):
        return f"{flag} {','.join(part.strip(_QUOTES) for part in value[1:-1].split(', '))}"
    if value in ("None", "False", "()"):
        return f"no {flag}"
    return flag if value == "True" else f"{flag} {word}"
