"""Every block of code in README.md and docs/ runs as it stands, page by page, and so do the examples of docstrings.

The Python of a page runs from top to bottom with the same names, in a directory that has only `small_files`; so do its
commands, in their places. A block that does not run here says so in a comment on the line above it:

    <!-- not run: REASON -->           it needs a GPU, a cluster, a network, or minutes
    <!-- run by A FILE -->             that test runs it

`<!-- ci:run -->` marks the README's set-up commands, which .ci/run takes from there.
"""

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lae_fast

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
# What is no code, or nothing that could run by itself.
OTHER_KINDS = {"", "math", "c", "text"}
# Commands that are left out of a block: it compiles for a minute, and tests/cli/test_warmup.py runs it.
TOO_LONG = "lae-fast warmup"
SEEN_TO_RUN_ELSEWHERE = ("not run: ", "run by ", "ci:run")


def blocks(page):
    """(first line, mark, kind, code) of each block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield text[: found.start("code")].count("\n") + 1, found["mark"] or "", found["kind"], found["code"]


def runs(mark, kind):
    return kind not in OTHER_KINDS and not mark.startswith(SEEN_TO_RUN_ELSEWHERE)


def small_files(folder):
    """The files that pages call FILE, OTHER and so on."""
    X = np.random.default_rng(0).standard_normal((120, 60)) * np.linspace(3, 1, 60)
    np.save(folder / "FILE.npy", X)
    np.save(folder / "OTHER.npy", X[:20])
    gaps = X[:, :8].copy()
    gaps[::7, 3] = np.nan
    np.savetxt(folder / "GAPS.csv", gaps, delimiter=",")
    h5py = pytest.importorskip("h5py")
    for name, key in (("FILE.h5", "dataset"), ("OTHER.h5", "rows")):
        with h5py.File(folder / name, "w") as file:
            file[key] = X


def run_python(page, line, code, names):
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def run_shell(code, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    code = "\n".join(line for line in code.splitlines() if not line.startswith(TOO_LONG))
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page):
    for line, mark, kind, _ in blocks(page):
        assert kind in {"python", "bash", *OTHER_KINDS}, f"{page}:{line} is {kind!r}"
        if mark.startswith("run by "):
            assert (ROOT / mark.removeprefix("run by ")).is_file(), f"{page}:{line}"
        if mark.startswith("not run:"):
            assert len(mark) > 15, f"{page}:{line} gives no reason"


@pytest.mark.full
@pytest.mark.needs_jit
@pytest.mark.every
@pytest.mark.parametrize("page", [page for page in PAGES if any(runs(mark, kind) for _, mark, kind, _ in blocks(page))])
def test_its_blocks_run(page, tmp_path, monkeypatch):
    if any("lae_fast.torch" in code for _, _, _, code in blocks(page)):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    small_files(tmp_path)
    # A copy: Numba keeps what it compiles beside the file, and could not load it for a page, which is no module.
    copied = shutil.copy(ROOT / page, tmp_path)
    names = {"__name__": "a page"}
    for line, mark, kind, code in blocks(page):
        if not runs(mark, kind):
            continue
        if kind == "bash":
            run_shell(code, tmp_path)
        else:
            run_python(copied, line, code, names)


MODULES = [module.name for module in pkgutil.walk_packages(lae_fast.__path__, "lae_fast.")]


@pytest.mark.needs_jit
@pytest.mark.every
@pytest.mark.parametrize("name", [name for name in MODULES if not re.search(r"\.(cuda|mkl)\b|__main__", name)])
def test_examples_of_docstrings(name, tmp_path, monkeypatch):
    if name.startswith("lae_fast.torch"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)  # some write files
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
