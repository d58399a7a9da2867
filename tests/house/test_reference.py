"""Every public name says in its docstring what a reader wants to know: shapes, what comes back, its source, an example.

test_code_blocks.py runs the examples.
"""

import doctest
import inspect
import re

import pytest

from tests.oracle.public_names import MODULES, members, public

# Shapes as they are written everywhere: (p,), (q, p), (..., d); or a number that is all there is.
SHAPE = re.compile(r"\((?:\w+|\.\.\.),(?: [\w+ ]+)?\)|\bscalar\b|(?:any|same) shape|shape of")
ARRAYS = re.compile(r"ndarray|ArrayLike|Tensor")
RETURNS = re.compile(r"^Returns\n|^Return ", re.MULTILINE)
ELSEWHERE = re.compile(r"\b(?:as|of|see) (?:of )?`\w+", re.IGNORECASE)  # "parameters and errors as of `prefix_loss`"
SOURCE = re.compile(r"[A-Z][\w-]+(?: and [A-Z]\w+| et al\.)? (?:19|20)\d\d\b|docs/[\w-]+\.md|Petrevski, Sec")

OF_FORMULAS = {"kernels", "losses", "metrics", "optimizers", "rules", "theory", "torch"}
# Functions of these modules that have no formula: they turn names into objects, or arrays into triangles.
WITHOUT_FORMULA = {
    "names", "from_name", "resolve", "default_loss", "resolve_schedule", "stril", "striu", "normalise_rows",
    "gemm", "syrk",  # which are BLAS's
    "PCAResult", "SecondMoments",  # tuples of tensors
    "add_rule_gradients_",  # each rule has its own
}  # fmt: skip
# Methods that no example calls, and why.
NOT_CALLED = {
    "set_callbacks": "scikit-learn's; it is there from scikit-learn 1.9 on only",
    "forward": "called by PyTorch: the examples call the module",
    "extra_repr": "called by PyTorch: the examples print the module",
    **dict.fromkeys(["check", "explicit", "multiplied"], "of torch.SecondMoments: called by the losses"),
    **dict.fromkeys(["centred_xx", "scaled_xx", "sums", "location", "from_arrays"], "of Moments: called by solvers"),
    **dict.fromkeys(
        ["begin", "changing", "give_up", "interrupted", "offer", "release"],
        "of Checkpoint: called by the pass that it is given to",
    ),
}


def documented(module):
    """Functions and classes among the public names, but for errors, whose names and sentences say all."""
    if module.endswith(".torch"):
        pytest.importorskip("torch")
    return {
        name: thing
        for name, thing in public(module).items()
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, BaseException))
    }


def text_of(thing):
    return inspect.getdoc(thing) or ""


def examples(text):
    return doctest.DocTestParser().get_examples(text)


def code(text):
    return "".join(example.source for example in examples(text))


def signature_of(function):
    """(whether it takes or gives arrays, whether it returns anything), by its annotations."""
    found = inspect.signature(function)
    annotations = [found.return_annotation, *(one.annotation for one in found.parameters.values())]
    returns = found.return_annotation not in (None, "None", inspect.Signature.empty)
    return any(ARRAYS.search(str(one)) for one in annotations), returns


@pytest.mark.every
@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    """Each function has an example that calls it and shows what comes of it; each method is in one of its module."""
    things = documented(module)
    texts = {name: text_of(thing) for name, thing in things.items()}
    silent = [name for name, text in texts.items() if not any(example.want for example in examples(text))]
    uncalled = [
        name for name, text in texts.items()
        if not isinstance(things[name], type) and not re.search(rf"\b{name.rpartition('.')[2]}\b", code(text))
    ]  # fmt: skip
    of_classes = {name: members(thing) for name, thing in things.items() if isinstance(thing, type)}
    shown = code("\n\n".join([*texts.values(), *(member.text for found in of_classes.values() for member in found)]))
    unseen = {
        f"{name}.{member.name}"
        for name, found in of_classes.items()
        for member in found
        if member.name not in NOT_CALLED and not examples(member.text)
        if not re.search(rf"\.{member.name}\b", shown)
    }
    assert (silent, uncalled, sorted(unseen)) == ([], [], [])


@pytest.mark.every
@pytest.mark.parametrize("module", MODULES)
def test_shapes_and_what_comes_back(module):
    """What takes or gives arrays says of which shapes; a function says what it returns."""
    shapeless, mute = [], []
    for name, thing in documented(module).items():
        is_class = isinstance(thing, type)
        found = [(f"{name}.{one.name}", one.function, one.text) for one in members(thing)] if is_class else []
        for called, function, text in found if is_class else [(name, thing, text_of(thing))]:
            assert text, f"{called} has no docstring"
            if ELSEWHERE.search(text):
                continue
            is_kernel = not inspect.isroutine(function)
            arrays, returns = (True, False) if is_kernel else signature_of(function)
            if arrays and not SHAPE.search(text):
                shapeless.append(called)
            if returns and not is_class and not RETURNS.search(text):
                mute.append(called)
    assert (shapeless, mute) == ([], [])


@pytest.mark.every
@pytest.mark.parametrize("module", [module for module in MODULES if module.partition(".")[2] in OF_FORMULAS])
def test_sources(module):
    """A formula says which paper or page it is from."""
    without = [
        name
        for name, thing in documented(module).items()
        if name.rpartition(".")[2] not in WITHOUT_FORMULA
        and not SOURCE.search(text_of(thing) + str(getattr(thing, "source", "")))
    ]
    assert without == []
