"""pytest plugin: runs scikit-learn's own tests with `lae_fast`'s classes in the place of theirs.

    python -m pytest -p tests.estimators.sklearn_plugin --pyargs sklearn.decomposition.tests.test_pca
    ... --pyargs sklearn.decomposition.tests.test_incremental_pca sklearn.decomposition.tests.test_truncated_svd

EXPECTED_FAILURES is the whole list of what does not hold, by test function.  It is strict: a listed test that passes
fails the run, so does an entry that matches no test, and so does a list
of more than eight functions for PCA, or of more than four for the two others together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import sklearn.decomposition
import sklearn.decomposition._incremental_pca
import sklearn.decomposition._pca
import sklearn.decomposition._truncated_svd

import lae_fast

PCA_MODULE = "test_pca"
STREAM_MODULES = ("test_incremental_pca", "test_truncated_svd")
# how many functions may be listed for these modules together
MOST_FUNCTIONS = {(PCA_MODULE,): 8, STREAM_MODULES: 4}
CLASSES = ("PCA", "IncrementalPCA", "TruncatedSVD")


@dataclass(frozen=True)
class Expected:
    """One test function that is not expected to pass, and why.

    function : its name;  cases : a regular expression searched in the parametrisation's id ("" for all of them);
    skip : not run at all, rather than run and required to fail;  module : the last part of the test file's name.
    """

    function: str
    reason: str
    cases: str = ""
    skip: bool = False
    module: str = PCA_MODULE

    def matches(self, module: str, function: str, case: str) -> bool:
        return module == self.module and function == self.function and re.search(self.cases, case) is not None


EXPECTED_FAILURES = (
    Expected(
        "test_pca_svd_solver_auto",
        "asserts scikit-learn's private attribute _fit_svd_solver; the route taken is public here: solver_",
    ),
    Expected(
        "test_sparse_pca_solver_error",
        "expects sparse data to be refused by some solvers; every solver takes them here",
    ),
    Expected(
        "test_pca_score",
        "its last assertion takes for granted that whiten=True changes the model covariance; scikit-learn scales the "
        "components twice there, here get_covariance is the covariance of the model whatever whiten is",
    ),
    Expected(
        "test_array_api_error_and_warnings_on_unsupported_params",
        "expects some solvers to refuse arrays of other libraries; every solver takes them here",
    ),
    Expected(
        "test_incremental_pca_sparse",
        "its last assertion expects partial_fit to refuse sparse batches; ours takes them",
        module="test_incremental_pca",
    ),
    Expected(
        "test_incremental_pca_validation",
        "its last assertion expects a first batch smaller than n_components to be refused; ours takes any batch",
        module="test_incremental_pca",
    ),
)

# scikit-learn's tests import the classes when they are collected, which is after this.
for _name, _home in zip(CLASSES, ("_pca", "_incremental_pca", "_truncated_svd")):
    setattr(sklearn.decomposition, _name, getattr(lae_fast, _name))
    setattr(getattr(sklearn.decomposition, _home), _name, getattr(lae_fast, _name))


def _module(item: pytest.Item) -> str:
    """The last part of the name of one of scikit-learn's modules that are run here, or ""."""
    name = item.path.stem
    is_theirs = item.path.as_posix().endswith(f"sklearn/decomposition/tests/{name}.py")
    return name if is_theirs and name in (PCA_MODULE, *STREAM_MODULES) else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for modules, most in MOST_FUNCTIONS.items():
        listed = {(expected.module, expected.function) for expected in EXPECTED_FAILURES if expected.module in modules}
        if len(listed) > most:
            raise pytest.UsageError(f"{len(listed)} functions are expected to fail in {modules}, at most {most} may be")
    ours = [item for item in items if isinstance(item, pytest.Function) and _module(item)]
    for module in {item.module for item in ours}:
        for name in CLASSES:
            if getattr(module, name, getattr(lae_fast, name)) is not getattr(lae_fast, name):
                raise pytest.UsageError(f"{module.__name__} was imported before the plugin and tests their own {name}")
    unused = {expected for expected in EXPECTED_FAILURES if expected.module in {_module(item) for item in ours}}
    for item in ours:
        case = item.callspec.id if hasattr(item, "callspec") else ""
        for expected in EXPECTED_FAILURES:
            if expected.matches(_module(item), item.originalname, case):
                unused.discard(expected)
                if expected.skip:
                    item.add_marker(pytest.mark.skip(reason=expected.reason))
                else:
                    item.add_marker(pytest.mark.xfail(strict=True, reason=expected.reason))
    whole_file = all("::" not in argument for argument in (items[0].config.args if items else ()))
    if ours and whole_file and unused:
        names = ", ".join(sorted(expected.function for expected in unused))
        raise pytest.UsageError(f"no such test, take it off the list of expected failures: {names}")
