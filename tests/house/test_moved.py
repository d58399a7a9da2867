"""Pickles of earlier versions: every class that one may name is found, wherever it has moved since."""

import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import _moved, losses, optimizers, rules

LOSSES = "mixed_l2 mse nested_dropout nonuniform_l2 ordered product_l2 stochastic_nested_dropout sum_l2 vae"
PRIORS = "array_prior geometric_prior uniform_prior"
OPTIMIZERS, SCHEDULES = "adam momentum nesterov sgd", "constant cosine custom exponential harmonic warmup"
RULES = "adaoja alpha_eigengame alternating gha gradient mu_eigengame oja rag"
# Each module that has had classes that pickles may hold, and these classes.  Nothing is ever taken from this list.
WRITTEN = {
    "_moved": "EarlierState",
    "autoencoder": "LinearAutoencoder",
    "checkpoint": "Checkpoint",
    "data.checkpoint": "Checkpoint",
    "data.tables": "TableFile",
    "eigen.eigenpairs": "Eigenpairs",
    "eigenpairs": "Eigenpairs",
    "errors": "BackendUnavailableError DataFileError DivergenceError MemoryLimitError UnsupportedOnBackendError",
    "estimators": "PCA",
    "estimators.incremental_pca": "IncrementalPCA",
    "estimators.linear_autoencoder": "LinearAutoencoder",
    "estimators.pca": "PCA",
    "estimators.truncated_svd": "TruncatedSVD",
    "incremental": "IncrementalPCA",
    "losses": f"{LOSSES} {PRIORS}",
    "losses._losses": LOSSES,
    "losses._priors": PRIORS,
    "moments": "Moments",
    "objective": "VaeGradients",
    "operators.frequent_directions": "Sketch",
    "operators.moments": "Moments",
    "optimizers": f"{OPTIMIZERS} {SCHEDULES}",
    "optimizers._optimizers": OPTIMIZERS,
    "optimizers._schedules": SCHEDULES,
    "priors": PRIORS,
    "rules": f"Matrices {RULES}",
    "rules._matrices": "Matrices",
    "rules._rules": RULES,
    "selection._spectrum": "Choice Spectrum",
    "sketch": "Sketch",
    "tables": "TableFile",
    "theory": "VaeOptimum",
    "theory._optima": "VaeOptimum",
    "training.objective": "VaeGradients",
    "truncated": "TruncatedSVD",
}
CLASSES = [(module, name) for module, names in WRITTEN.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_a_class_is_found_where_a_pickle_looks_for_it(module, name):
    found = pickle.loads(f"clae_fast.{module}\n{name}\n.".encode())
    assert isinstance(found, type)
    assert found.__name__ == name


def test_what_pickles_name_today_is_on_the_list():
    """Whoever moves a class adds its new place above, and the old one to `lae_fast._moved`."""
    public = [getattr(module, name) for module in (lf, losses, optimizers, rules) for name in module.__all__]
    made = {value for value in public if isinstance(value, type)}
    made -= {losses.Loss, losses.Prior, optimizers.Optimizer, optimizers.Schedule, rules.Rule}  # bases, never pickled
    names = {(value.__module__.removeprefix("lae_fast."), value.__name__) for value in made}
    assert {("estimators.pca", "PCA"), ("rules._rules", "gha")} <= names <= set(CLASSES)


def test_each_module_that_has_moved_has_classes_on_the_list():
    assert _moved.MODULES.keys() <= WRITTEN.keys()


@pytest.mark.parametrize(
    ("model", "old"),
    [
        (lf.PCA(2), {"estimators.pca": "estimators", "operators.moments": "moments"}),
        (lf.IncrementalPCA(2), {"estimators.incremental_pca": "incremental", "operators.moments": "moments"}),
    ],
    ids=str,
)
def test_a_stream_goes_on_from_an_old_pickle(model, old):
    X = np.random.default_rng(0).standard_normal((60, 5))
    model = type(model)(2).partial_fit(X[:30])
    stored = pickle.dumps(model, protocol=2)  # which names modules in plain text
    for new, before in old.items():
        assert f"clae_fast.{new}\n".encode() in stored
        stored = stored.replace(f"clae_fast.{new}\n".encode(), f"clae_fast.{before}\n".encode())
    loaded = pickle.loads(stored)
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(
        loaded.partial_fit(X[30:]).transform(X), model.partial_fit(X[30:]).transform(X), strict=True
    )


def test_a_class_that_is_no_more_is_said_to_be():
    with pytest.raises(ImportError, match=r"lae_fast\.moments\.Nothing is no longer part of lae_fast: load this"):
        pickle.loads(b"clae_fast.moments\nNothing\n.")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module("lae_fast.nothing")
    assert not hasattr(importlib.import_module("lae_fast.moments"), "__warningregistry__")


def test_a_half_trained_model_of_an_earlier_version_is_usable_and_says_that_it_cannot_go_on():
    X = np.random.default_rng(0).standard_normal((60, 5))
    model = lf.LinearAutoencoder(2).partial_fit(X)
    stored = pickle.dumps(model, protocol=2)
    for kind in {type(model._run), type(model._run.engine), type(model._run.problem), type(model._run.settings)}:
        here = f"c{kind.__module__}\n{kind.__name__}\n".encode()
        assert here in stored
        stored = stored.replace(here, f"clae_fast.engines\n{kind.__name__}\n".encode())
    loaded = pickle.loads(pickle.dumps(pickle.loads(stored)))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X), strict=True)
    with pytest.raises(ValueError, match=r"init=\(model\.decoder_, model\.encoder_\)"):
        loaded.partial_fit(X)
    further = lf.LinearAutoencoder(2, init=(loaded.decoder_, loaded.encoder_)).partial_fit(X)
    assert further.score(X) > model.score(X)
    assert loaded.fit(X).partial_fit(X).n_iter_ == 1  # a fit is a start anew


def test_an_old_pickle_is_found_by_a_process_that_has_imported_nothing_yet():
    code = "import pickle; print(pickle.loads(b'clae_fast.priors\\nuniform_prior\\n.').__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout == "uniform_prior\n"
