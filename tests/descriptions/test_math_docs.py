"""docs/math.md: its equations are numbered without gaps, everything cited exists, and the table is the code's."""

import re
from pathlib import Path

import pytest

from lae_fast import losses, metrics, rules
from lae_fast.training import compatibility

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "lae_fast"
SOURCES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
CITING = [path for path, text in SOURCES.items() if "docs/math.md Eq." in text]
GUIDE = (ROOT / "docs" / "autoencoders.md").read_text(encoding="utf-8")
TAGS = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", TEXT)]


def test_equations_are_numbered_without_gaps():
    assert len(TAGS) > 40
    assert list(range(1, len(TAGS) + 1)) == TAGS


@pytest.mark.parametrize("path", CITING)
def test_cited_equations_exist(path):
    cited = re.findall(r"docs/math\.md Eq\. (\d+)(?:(?: to | and )(\d+))?(?: and (\d+) to (\d+))?", SOURCES[path])
    numbers = [int(n) for group in cited for n in group if n]
    assert numbers, "the file cites no equation"
    assert max(numbers) <= len(TAGS)


@pytest.mark.parametrize("room", ["losses/", "rules/", "optimizers/", "metrics.py", "theory/", "kernels/", "training/"])
def test_every_room_of_formulas_cites_them(room):
    assert any(path.startswith(room) for path in CITING)


@pytest.mark.parametrize("text", [TEXT, GUIDE], ids=["math", "autoencoders"])
def test_the_compatibility_table_is_the_one_of_the_code(text):
    """To renew it, paste the text of `lae_fast.training.compatibility.markdown_table()` between the two comments."""
    between = re.search(r"markdown_table\(\) -->\n(.*)<!-- end of table -->", text, re.DOTALL)
    assert between.group(1) == "\n" + compatibility.markdown_table() + "\n"


def test_every_loss_rule_and_metric_is_explained():
    for name in (*losses.names(), *rules.names(), *metrics.__all__):
        if name != "ratio_total":
            assert name in TEXT.replace(r"\_", "_"), name


def test_markdown_is_plain_and_its_fences_are_balanced():
    assert TEXT.isascii()
    assert TEXT.count("```math") * 2 == TEXT.count("```")
    assert TEXT.count("$`") == TEXT.count("`$")
    assert max(len(line) for line in TEXT.splitlines() if not line.startswith(("|", "- "))) <= 150


def test_every_kernel_that_the_guide_names_exists():
    code = "".join(SOURCES.values())
    named = set(re.findall(r"`(_?[a-z]+(?:_[a-z]+)*)`", GUIDE)) - {"sgd", "mse"}
    assert {"masked_rows", "fused_step", "iterate"} <= named
    for name in named:
        assert re.search(rf"\b{name}\b", code), name
    assert GUIDE.isascii()
