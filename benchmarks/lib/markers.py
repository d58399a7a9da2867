"""What stands between the two markers of a page is replaced, never written by hand. Imports nothing."""

from __future__ import annotations


def replace_between(text: str, name: str, new: str) -> str:
    """`text` with what is between the markers of `name` replaced; unchanged where there are no markers.

    Raises
    ------
    ValueError
        One of the two markers is missing, stands twice, or they are in the wrong order.
    """
    opening, closing = f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->"
    counts = text.count(opening), text.count(closing)
    if counts == (0, 0):
        return text
    if counts != (1, 1) or text.index(opening) > text.index(closing):
        raise ValueError(f"expected {opening} once and then {closing} once, found {counts[0]} and {counts[1]}")
    before, rest = text.split(opening)
    _, after = rest.split(closing)
    return f"{before}{opening}\n{new}\n{closing}{after}"
