"""No file and no function is longer than can be read at once, but for a reason that its docstring gives."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for room in ("lae_fast", "benchmarks", "tests") for path in (ROOT / room).rglob("*.py"))
MOST_FILE, MOST_FUNCTION = 450, 60
REASONS = ("Long because", "Over sixty lines")


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return function.end_lineno - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if is_text else 0)


def too_long(tree: ast.AST) -> list[str]:
    """Functions that are long without a reason, in their own docstring or in that of the function around them."""
    found = []

    def walk(node: ast.AST, excused: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inner = excused
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                text = " ".join((ast.get_docstring(child) or "").split())
                inner = excused or any(reason in text for reason in REASONS)
                if code_lines(child) > MOST_FUNCTION and not inner:
                    found.append(f"{child.name}: {code_lines(child)} lines")
            walk(child, inner)

    walk(tree, False)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lengths(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_FILE, "split the file by idea"
    assert too_long(ast.parse(text)) == []


def test_a_long_function_is_seen_unless_it_says_why():
    body = "\n".join(f"    x{i} = {i}" for i in range(61))
    assert too_long(ast.parse(f"def f():\n{body}")) == ["f: 62 lines"]
    assert too_long(ast.parse(f'def f():\n    """Long because it must be."""\n{body}')) == []
