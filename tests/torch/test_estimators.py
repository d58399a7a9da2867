"""Tensors as X of every estimator: with a history, in half precision, and in batches of a DataLoader."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")

import lae_fast as lf  # noqa: E402

DataLoader, TensorDataset = torch.utils.data.DataLoader, torch.utils.data.TensorDataset
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = {
    "PCA": lambda: lf.PCA(2),
    "IncrementalPCA": lambda: lf.IncrementalPCA(2),
    "TruncatedSVD": lambda: lf.TruncatedSVD(2),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(2, loss="mse", max_iter=30),
}
TENSORS = {
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "parameter": torch.nn.Parameter,
    "result of a network": lambda x: x.clone().requires_grad_() * 1.0,
    "bfloat16": lambda x: x.bfloat16(),
    "bfloat16 with a history": lambda x: x.bfloat16().requires_grad_(),
}


@pytest.fixture(scope="module")
def exact():
    """Numbers that bfloat16 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(60, 6, generator=generator) * torch.arange(6, 0, -1)).bfloat16().float()


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_method_takes_a_tensor_as_its_numbers(exact, name, kind):
    given = TENSORS[kind](exact)
    expected = ESTIMATORS[name]().fit(exact.numpy())
    found = ESTIMATORS[name]().fit(given)
    codes = found.transform(given)
    np.testing.assert_allclose(codes, expected.transform(exact.numpy()), rtol=1e-5, atol=1e-4)
    tensor = TENSORS[kind](torch.from_numpy(codes))
    np.testing.assert_allclose(found.inverse_transform(tensor), found.inverse_transform(codes), rtol=2e-2, atol=2)
    assert isinstance(codes, np.ndarray)


def loaders(x):
    labels = torch.arange(len(x))
    return {
        "rows": DataLoader(x, batch_size=20),
        "[rows]": DataLoader(TensorDataset(x), batch_size=20),
        "[rows, labels]": DataLoader(TensorDataset(x, labels), batch_size=20),
        "tuples": [(x[:20], labels[:20]), (x[20:40], labels[20:40]), (x[40:], labels[40:])],
    }


@pytest.mark.parametrize("kind", ["rows", "[rows]", "[rows, labels]", "tuples"])
@pytest.mark.parametrize("name", ["PCA", "IncrementalPCA", "LinearAutoencoder"])
def test_batches_of_a_loader(exact, name, kind):
    found, expected = ESTIMATORS[name](), ESTIMATORS[name]()
    for batch in loaders(exact)[kind]:
        found.partial_fit(batch)
    for first in (0, 20, 40):
        expected.partial_fit(exact[first : first + 20].numpy())
    np.testing.assert_array_equal(found.components_, expected.components_)


def test_a_list_of_matrices_is_still_blocks_of_rows(exact):
    found = lf.PCA(2).fit([exact[:20], exact[20:]])
    np.testing.assert_allclose(found.explained_variance_, lf.PCA(2).fit(exact).explained_variance_, rtol=1e-5)


def test_a_loader_is_refused_with_the_way_out(exact):
    loader = loaders(exact)["[rows, labels]"]
    with pytest.raises(TypeError, match="X is a DataLoader: pass its batches to partial_fit"):
        lf.PCA(2).fit(loader)
    found = lf.PCA(2).fit(lambda: (rows for rows, *_ in loader))  # what the message says
    np.testing.assert_allclose(found.explained_variance_, lf.PCA(2).fit(exact).explained_variance_, rtol=1e-5)


def test_losses_and_references_take_tensors_too(exact):
    truth = lf.top_eigenpairs(exact, 2).vectors
    reference = torch.from_numpy(truth).requires_grad_()
    found = lf.LinearAutoencoder(2, max_iter=5).fit(exact, reference=reference)
    assert found.history_["alignment"].size
    a, b = reference.float(), reference.float().T
    assert lf.loss(a, b, exact) == pytest.approx(lf.loss(a.detach().numpy(), b.detach().numpy(), exact.numpy()))
    assert lf.loss(a.bfloat16(), b.bfloat16(), exact) > 0


def test_scores_of_a_tensor_on_no_device(exact):
    found = lf.PCA(2).fit(exact)
    with pytest.raises(TypeError, match="'meta'"):
        found.inverse_transform(torch.empty(3, 2, device="meta"))
