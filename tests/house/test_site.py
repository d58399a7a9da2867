"""The site of docs/: it builds without a warning, so every link leads somewhere, and it has every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle.public_names import MODULES, public

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.full  # takes half a minute, and the extra `docs`


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("sphinx")
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(built)]
    finished = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return built


def test_every_public_name_is_in_the_reference(site):
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    there = set(re.findall(r'id="(?:module-)?(lae_fast[.\w]+)"', pages))
    assert sorted({name for module in MODULES for name in public(module)} - there) == []


def test_it_is_read_without_a_network(site):
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="([^"]+)"', "".join(pages))
    loaded += re.findall(r'<link[^>]*rel="[^"]*(?:stylesheet|icon|preload)[^"]*"[^>]*href="([^"]+)"', "".join(pages))
    assert len(loaded) > 50
    assert [address for address in loaded if address.startswith(("http", "//"))] == []


def test_equations_are_drawn_and_keep_their_numbers(site):
    page = (site / "math.html").read_text(encoding="utf-8")
    tags = re.findall(r"\\tag\{(\d+)\}", (ROOT / "docs" / "math.md").read_text(encoding="utf-8"))
    assert re.findall(r'id="equation-(\d+)"', page) == tags
    assert "<merror" not in page and r"\frac" not in page


def test_docstrings_are_set_without_their_markup(site):
    for page in (site / "api").glob("*.html"):
        assert re.findall(r"\*\*\w+\*\*|>\*[a-z][\w, ]*\*<|rubric::|:raises ", page.read_text(encoding="utf-8")) == []
