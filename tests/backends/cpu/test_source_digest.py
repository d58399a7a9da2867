"""The compile cache is keyed by the text of every file that compiled code can reach: none is forgotten.

Found from the imports: from each compiled function through the names in it, to where those are defined, in whichever
file of the package, and on from there.
"""

import ast
import collections
import functools
from pathlib import Path

import pytest

import lae_fast
from lae_fast.backends.cpu import jit
from lae_fast.backends.cuda import target

PACKAGE = Path(lae_fast.__file__).resolve().parent
COMPILING = {"kernel", "ordered_kernel", "lean_kernel", "settled_kernel", "overload", "intrinsic", "Kernel", "device"}


class Files:
    """The package's files, parsed, and what every name in them is bound to."""

    def __init__(self, texts):
        self.trees = {path: parsed(text) for path, text in texts.items()}
        self.bound = {path: bindings(tree) for path, tree in self.trees.items()}

    def compiled(self):
        """(file, node) of every function that Numba compiles or asks what to compile, and of `kernel(function)`."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                marks = node.decorator_list if isinstance(node, ast.FunctionDef) else []
                marks = [node] if isinstance(node, ast.Call) else marks
                if COMPILING & {called(mark) for mark in marks}:
                    yield path, node

    def reached(self):
        """Every file that a compiled function takes something from."""
        found, todo, seen = set(), list(self.compiled()), set()
        while todo:
            path, node = todo.pop()
            if id(node) not in seen:
                seen.add(id(node))
                found.add(path)
                for name, attribute in names_in(node):
                    todo += self.meanings(path, name, attribute)
        return found

    def meanings(self, path, name, attribute=None):
        """(file, node) of what binds a name in a file; where the name is a module, of its attribute."""
        for node in self.bound[path].get(name, []):
            if isinstance(node, ast.ImportFrom):
                yield from self.imported(path, node, name, attribute)
            else:
                yield path, node

    def imported(self, path, node, name, attribute):
        original = next(alias.name for alias in node.names if name == (alias.asname or alias.name))
        folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for module in (folder / f"{original}.py", folder / original / "__init__.py"):
            if module in self.trees:
                yield from self.meanings(module, attribute) if attribute else [(module, self.trees[module])]
                return
        home = folder.with_suffix(".py") if folder.with_suffix(".py") in self.trees else folder / "__init__.py"
        yield from self.meanings(home, original)


parsed = functools.cache(ast.parse)


@functools.cache
def bindings(tree):
    """What binds each name of a file, outside functions: definitions, assigned values, imports of the package's own."""
    found, todo = collections.defaultdict(list), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name].append(node)
            continue
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for one in ast.walk(target):
                    if isinstance(one, ast.Name):
                        found[one.id].append(node.value)
        elif isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                found[alias.asname or alias.name].append(node)
        todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.excepthandler))]
    return found


def called(node):
    """The name of a decorator, or of the function of a call."""
    return getattr(node.func if isinstance(node, ast.Call) else node, "id", None)


def names_in(node):
    """(module, attribute) of every attribute of a name, and (name, None) of every other name, but for local ones."""
    bases, local = set(), {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    local |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id not in local:
            bases.add(id(part.value))
            yield part.value.id, part.attr
        elif isinstance(part, ast.Name) and id(part) not in bases and part.id not in local:
            yield part.id, None


def package(other="cuda"):
    """The text of every file but those of the other backend, whose kernels are kept elsewhere."""
    theirs = PACKAGE / "backends" / other
    return {path: path.read_text() for path in PACKAGE.rglob("*.py") if theirs not in path.parents}


def test_every_file_that_compiled_code_reaches_is_in_the_digest():
    reached = Files(package()).reached()
    assert {PACKAGE / "backends" / "cpu" / "passes" / "tiles.py", PACKAGE / "backends" / "formulas.py"} <= reached
    assert reached <= set(jit.source_files()), "the digest of backends/cpu/jit.py lacks files"


def test_every_file_that_cuda_kernels_reach_is_in_their_digest():
    texts = package("cpu")
    there = {path: text for path, text in texts.items() if PACKAGE / "backends" in path.parents}
    reached = Files(there).reached()
    assert {PACKAGE / "backends" / "cuda" / "reduce.py", PACKAGE / "backends" / "formulas.py"} <= reached
    assert reached <= set(target.source_files()), "the digest of backends/cuda/target.py lacks files"


TAKEN = "from ...drift import FEW_ENTRIES\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("backends/cpu/passes/tiles.py", f"{TAKEN}@kernel\ndef f(a):\n    return FEW_ENTRIES\n"),
        ("backends/cpu/passes/tiles.py", f"{TAKEN}MORE = 2 * FEW_ENTRIES\n@kernel\ndef f(a):\n    return MORE\n"),
        ("backends/cpu/passes/tiles.py", "from ... import drift\n@kernel\ndef f(a):\n    return drift.FEW_ENTRIES\n"),
        ("backends/formulas.py", "from .drift import roundoff\ndef velocity(old):\n    return roundoff(old)\n"),
        ("theory/_curvature.py", "from ..backends.cpu.jit import kernel\n@kernel\ndef f(a):\n    return a\n"),
    ],
)
def test_the_search_sees_a_file_that_is_missing(file, text):
    texts = package()
    texts[PACKAGE / file] += text
    assert not Files(texts).reached() <= set(jit.source_files())
