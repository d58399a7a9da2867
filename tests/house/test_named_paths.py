"""What a text names is there: files, folders, functions, and naive twins; and no test imports another."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A path from the root, with an optional function; `{a,b}` and `*` as a shell reads them.
PATH = re.compile(
    r"(?<![\w./-])((?:lae_fast|tests|benchmarks|docs|oracle)(?:/[\w.*{},-]*[\w*}])+/?)(?:::(\w+(?:\.\w+)?))?"
)
# Files that a command of ours writes, and patterns of other programs.
NOT_PATHS = re.compile(r"benchmarks/results/.*|docs/_.*|.*/[.][*]")


def texts():
    """Files whose text is ours: sources, pages, settings, the CI script."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    names = listed.stdout.split("\n") if listed.returncode == 0 else []
    environments = [found.parent for found in ROOT.glob("*/pyvenv.cfg")]  # whatever a user called one
    paths = [ROOT / name for name in names] or list(ROOT.rglob("*"))
    paths = [path for path in paths if not any(path.is_relative_to(one) for one in environments)]
    wanted = {".py", ".md", ".toml", ".yml", ".yaml"}
    return [path for path in paths if path.is_file() and (path.suffix in wanted or path.parent.name == ".ci")]


def expanded(pattern):
    """`a{b,c}d` -> abd, acd."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    return [
        name
        for part in found[1].split(",")
        for name in expanded(pattern[: found.start()] + part + pattern[found.end() :])
    ]


@functools.cache
def functions(path):
    """The names a module defines: functions, classes, methods as Class.method, and assigned names."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef):
                found.add(inner.name)
            if isinstance(inner, ast.ClassDef):
                found |= {f"{inner.name}.{f.name}" for f in inner.body if isinstance(f, ast.FunctionDef)}
    return found


def missing(text):
    """What `text` names and is not there."""
    for match in PATH.finditer(text):
        name, function = match[1].rstrip("/"), match[2]
        if NOT_PATHS.fullmatch(name) or text[match.end() : match.end() + 1] == "\\":  # a pattern of `re`
            continue
        for one in expanded(name):
            base = ROOT / "tests" if one.startswith("oracle/") else ROOT
            found = [path for path in base.glob(one) if path.exists()]
            if not found or (function and not any(function in functions(path) for path in found)):
                yield match[0]


def test_every_path_that_is_named_exists():
    found = {
        str(path.relative_to(ROOT)): sorted(set(missing(path.read_text())))
        for path in texts()
        if path != Path(__file__).resolve()  # its counterexamples
    }
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_a_naive_twin_is_named_with_its_file():
    """After "Naive twin:" stands `oracle/file.py::function, another`, each of them there, or a function of NumPy."""
    twin = re.compile(
        r"[Nn]aive twins?:\s+(?:((?:oracle|lae_fast)/[\w/]+\.py)::(\w+(?:,\s+\w+)*)|(?:numpy\.|NumPy's )\w+)?"
    )
    for path in (ROOT / "lae_fast").rglob("*.py"):
        for match in twin.finditer(path.read_text()):
            assert match[0].rstrip()[-1] != ":", f"{path.relative_to(ROOT)}: a twin without its file"
            if match[1]:
                there = functions((ROOT / "tests" if match[1].startswith("oracle") else ROOT) / match[1])
                unknown = {name for name in re.split(r",\s+", match[2]) if name not in there} - {"by", "center"}
                assert not unknown, f"{path.relative_to(ROOT)}: {match[1]} has no {unknown}"


@pytest.mark.parametrize(
    "text", ["lae_fast/nowhere.py", "oracle/naive.py::nothing", "tests/{cli,nowhere}", "docs/no.md"]
)
def test_what_is_not_there_is_found(text):
    assert list(missing(f"See {text}, please."))


def test_no_test_imports_another():
    """What tests share lies in tests/oracle or in a folder's conftest.py."""
    allowed = ("tests.oracle",)
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("tests") or name.startswith(allowed), f"{path.relative_to(ROOT)}: {name}"
            assert not isinstance(node, ast.ImportFrom) or not node.level, (
                f"{path.relative_to(ROOT)}: a relative import"
            )
