"""The house: what `import lae_fast` loads, that the public names agree, and that the imports point down only."""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lae_fast

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lae_fast"

# Top to bottom. A room is a package or a module of the top level; the rooms inside `backends` count by themselves.
# A room may import its own layer (modules without a cycle) and every layer below.
LAYERS = (
    {"__main__", "cli", "torch", "patch", "plots"},
    {"estimators"},
    {"eigen", "training", "selection"},
    {"operators"},
    {"data", "plan", "kernels"},
    {"backends"},
    {"backends.cpu", "backends.cuda"},
    {"losses", "rules", "optimizers", "stopping", "metrics", "theory", "_registry"}
    | {"backends.interface", "backends.formulas", "backends.threads", "backends.drift"}
    | {"backends.lines", "backends.sample_weights", "backends.training_interface"},
    {"datasets", "progress", "validation", "sizes", "errors", "_version", "_moved"},
)
EDGE = "cli"  # uses the library as its users do, by its public names
# What they may import besides each other is held to the same rule.
DESCRIPTIONS = {"losses", "rules", "optimizers", "stopping", "metrics", "theory", "_registry", "validation", "sizes"}

# Libraries that only these rooms and modules may import; the rest must work, and load, without them.
HOMES = {
    "numba": {"backends", "backends.cpu", "backends.cuda", "kernels"},
    "llvmlite": {"backends", "backends.cpu", "backends.cuda"},
    "numba_cuda": {"backends.cuda"},
    "cupy": {"backends.cuda"},
    "typer": {"cli"},
    "rich": {"cli", "progress"},
    "matplotlib": {"plots"},
    "h5py": {"data"},
    "zarr": {"data"},
    "pyarrow": {"data"},
    "torch": {"torch"},
    "dask": {"data"},
    "distributed": {"data"},
}

# Only these import one backend's files: all others ask `backends` for a `Backend` (backends/interface.py).
ONE_BACKEND = {"backends", "backends.cpu", "backends.cuda", "kernels", "training.cpu_loop", "training.cuda_loop"}

# What a description may import inside a function, and nowhere else: an assignment problem is no formula.
LAZY = {("metrics", "scipy")}

HEAVY = ("numba", "llvmlite", "scipy", "sklearn", "numpy", "matplotlib", "typer", "rich", "h5py", "torch")


def part(module: str) -> str:
    """The name in LAYERS that a dotted module name (without the package) belongs to."""
    pieces = module.split(".")
    return ".".join(pieces[: 2 if pieces[0] == "backends" else 1])


def layer(module: str) -> int | None:
    return next((i for i, names in enumerate(LAYERS) if part(module) in names), None)


def module_name(path: Path) -> str:
    pieces = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


def imports(tree: ast.Module, module: str, is_package: bool, known: set[str]) -> set[str]:
    """Dotted names that a module imports anywhere, in functions too: "numpy", or "lae_fast.eigen.solve" for our own.

    ``from lae_fast import x`` counts as "lae_fast.x" where x is a module, as "lae_fast:x" where it is a public name.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["lae_fast", *(module.split(".") if module else [])]
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix("lae_fast.")
                if base.split(".")[0] == "lae_fast" and inner in known:
                    found.add(f"lae_fast.{inner}")
                else:
                    found.add(f"lae_fast:{alias.name}" if base == "lae_fast" else base)
    return found


def violations(sources: dict[str, tuple[str, bool]]) -> list[str]:
    """What is wrong with the imports of a package given as {module: (source, is_package)}; the root is ""."""
    wrong, graph, known = [], {}, set(sources)
    for module, (text, is_package) in sources.items():
        names = imports(ast.parse(text), module, is_package, known)
        if (
            module == ""
        ):  # the root loads names lazily and for type checkers; that it loads nothing is tested in a process
            continue
        own = layer(module)
        if own is None:
            wrong.append(f"{module}: in no layer; put it into LAYERS")
            continue
        graph[module] = set()
        for name in sorted(names):
            if name.split(".")[0] == "numba" and name.startswith("numba.cuda") and module != "backends.cuda.target":
                wrong.append(f"{module}: imports a CUDA target, which only backends.cuda.target may")
            library = name.split(".")[0].split(":")[0]
            if library != "lae_fast":
                if library in HOMES and HOMES[library].isdisjoint({part(module), module}):
                    wrong.append(f"{module}: imports {library}, which only {sorted(HOMES[library])} may")
                plain = library in sys.stdlib_module_names | {"numpy"} or (part(module), library) in LAZY
                if part(module) in DESCRIPTIONS and not plain:
                    wrong.append(f"{module}: imports {library}; a description imports NumPy only")
                continue
            if name == "lae_fast" or ":" in name:
                if part(module) != EDGE:
                    wrong.append(f"{module}: imports the public name {name}; import the module that has it")
                continue
            target = name.removeprefix("lae_fast.")
            graph[module].add(target)
            below = layer(target)
            if below is not None and below < own:
                wrong.append(f"{module}: imports {target}, which is above it")
            if part(target) in ("backends.cpu", "backends.cuda") and ONE_BACKEND.isdisjoint({part(module), module}):
                wrong.append(f"{module}: imports {target}; above backends nothing names one backend's files")
            if {part(module), part(target)} == {"backends.cpu", "backends.cuda"}:
                wrong.append(f"{module}: imports {target}; the two backends never import each other")
            if part(module) in DESCRIPTIONS and part(target) not in DESCRIPTIONS:
                wrong.append(f"{module}: imports {target}; a description imports descriptions only")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        wrong.append(f"a cycle: {' -> '.join(error.args[1])}")
    return wrong


def test_imports_point_down_only():
    sources = {module_name(path): (path.read_text(), path.name == "__init__.py") for path in PACKAGE.rglob("*.py")}
    assert "" in sources and "cli" in sources
    assert violations(sources) == []


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("operators.moments", "from lae_fast.eigen.solve import top_eigenpairs", "above it"),
        ("operators.moments", "def f():\n    from ..estimators.pca import PCA", "above it"),
        ("backends.cpu.tiles", "from ... import plan", "above it"),
        ("backends.cpu.tiles", "from ..cuda import tiles", "never import each other"),
        ("eigen.solve", "from ..backends.cuda import tiles", "names one backend's files"),
        ("eigen.solve", "from lae_fast import PCA", "public name"),
        ("eigen.solve", "import lae_fast", "public name"),
        ("losses", "import scipy.linalg", "NumPy only"),
        ("losses", "from . import errors", "descriptions only"),
        ("operators.moments", "import numba", "imports numba"),
        ("backends.cpu.tiles", "from numba.cuda import jit", "CUDA target"),
        ("estimators.pca", "from matplotlib.figure import Figure", "imports matplotlib"),
        ("cli.app", "from matplotlib.figure import Figure", "imports matplotlib"),
        ("helpers", "", "in no layer"),
        ("plan", "from .data.sources import x", "a cycle"),
    ],
)
def test_walker_sees_an_arrow_that_points_up(module, text, message):
    others = ("", "cli.app", "estimators.pca", "eigen.solve", "operators.moments", "plan", "losses", "errors")
    sources = {name: ("", name == "") for name in (*others, "backends.cuda.tiles")}
    sources |= {"data.sources": ("from lae_fast import plan", False)}
    assert violations(sources) == []
    found = violations(sources | {module: (text, False)})
    assert len(found) == 1 and message in found[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("cli.app", "import lae_fast\nfrom lae_fast import PCA, __version__"),
        ("eigen.solve", "from lae_fast.operators import moments\nfrom ..backends import interface\nimport numpy as np"),
        ("losses", "import dataclasses\nimport numpy as np\nfrom . import optimizers"),
    ],
)
def test_walker_accepts_an_arrow_that_points_down(module, text):
    sources = dict.fromkeys(
        ["operators.moments", "backends.cpu.tiles", "backends.interface", "optimizers"], ("", False)
    )
    sources |= {"backends": ("from lae_fast.backends.cpu import tiles", True)}
    assert violations(sources | {module: (text, False)}) == []


def in_fresh_process(code: str) -> object:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "statement",
    [
        "import lae_fast",
        "import lae_fast; dir(lae_fast)",
        "import lae_fast.cli",
        "from lae_fast import BackendUnavailableError, datasets",
    ],
)
def test_import_loads_no_heavy_library(statement):
    loaded = in_fresh_process(
        f"{statement}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    assert loaded == []


def test_import_takes_less_than_a_twentieth_of_a_second():
    """A stated promise, so the one timing in the tests; it takes about 4 ms, and the best of five is compared."""
    code = "import time; t = time.perf_counter(); import lae_fast; print(time.perf_counter() - t)"
    assert min(in_fresh_process(code) for _ in range(5)) < 0.05


def test_public_names_are_the_same_for_people_and_for_type_checkers():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert typed == lae_fast._HOMES
    assert all(alias.asname == alias.name for node in guarded.body for alias in node.names)
    assert lae_fast.__all__ == sorted({"__version__", *typed})
    assert set(lae_fast.__all__) <= set(dir(lae_fast))


@pytest.mark.parametrize("name", lae_fast.__all__)
def test_public_name_loads(name):
    value = getattr(lae_fast, name)
    assert value is getattr(lae_fast, name)
    assert name == "__version__" or value.__name__ in (name, f"lae_fast.{name}")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lae_fast.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from lae_fast import nothing")


def test_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_optional_modules_are_loaded_by_name_only():
    assert set(lae_fast._OPTIONAL).isdisjoint(lae_fast.__all__)


def test_without_pytorch_the_message_says_what_to_install():
    code = (
        "import json, sys; sys.modules['torch'] = None; import lae_fast\n"
        "try:\n    lae_fast.torch\nexcept ImportError as error:\n    print(json.dumps(str(error)))"
    )
    assert in_fresh_process(code) == "lae_fast.torch needs PyTorch: pip install 'lae-fast[torch]'."
