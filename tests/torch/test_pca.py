"""Differentiable PCA: against finite differences in float64, at ties, in float32, and bad input."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")

import lae_fast as lf  # noqa: E402
from lae_fast import torch as lae_torch  # noqa: E402
from lae_fast.torch import _pca  # noqa: E402


def drawn(m, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, d, generator=generator, dtype=torch.float64)


def with_values(singular, m, seed=0):
    """Centred rows with these singular values."""
    left = drawn(m, len(singular), seed)
    left = torch.linalg.qr(left - left.mean(dim=0))[0]
    right = torch.linalg.qr(drawn(len(singular), len(singular), seed + 1))[0]
    return (left * torch.tensor(singular, dtype=torch.float64)) @ right


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(9, 6), (5, 8), (4, 4)])
def test_gradients_of_everything(shape, center):
    x = drawn(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(lae_torch.pca(x, 2, center=center)), (x,))


@pytest.mark.parametrize("shape", [(9, 6), (5, 8)])
def test_gradients_of_the_projector(shape):
    def projector(x):
        components = lae_torch.pca(x, 3).components
        return components.T @ components

    assert torch.autograd.gradcheck(projector, (drawn(*shape).requires_grad_(),))


def test_values_and_components_are_those_of_pca():
    x = drawn(60, 7) + 4
    found, expected = lae_torch.pca(x, 3), lf.PCA(3).fit(x.numpy())
    np.testing.assert_allclose(found.values, expected.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(found.mean, expected.mean_, rtol=1e-12)
    largest = np.abs(expected.components_).argmax(axis=1)
    signs = np.sign(expected.components_[range(3), largest])[:, None]
    np.testing.assert_allclose(found.components, signs * expected.components_, rtol=1e-6, atol=1e-8)


def test_what_runs_on_other_devices_gives_the_same():
    x = drawn(30, 6) + 2
    mean = x.mean(dim=0)
    values, components = _pca._eigenpairs(x, mean, 3, True)
    others = _pca._by_svd(x, mean, 3, True)
    torch.testing.assert_close(others[0], values)
    torch.testing.assert_close(others[1], components, rtol=1e-6, atol=1e-8)


TIED = (5.0, 5.0, 2.0, 1.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tie_inside_has_the_gradient_of_the_subspace(dtype):
    x, target, along = with_values(TIED, 8), drawn(5, 5, 3), drawn(8, 5, 4)

    def by_svd(x):
        rows = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False)[2][:2]
        return (rows.T @ rows * target).sum()

    expected = (by_svd(x + 1e-5 * along) - by_svd(x - 1e-5 * along)) / 2e-5
    given = x.to(dtype).requires_grad_()
    components = lae_torch.pca(given, 2).components
    (components.T @ components * target.to(dtype)).sum().backward()
    assert (given.grad.double() * along).sum().item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tied_values_have_the_gradient_of_their_sum(dtype):
    x, along = with_values(TIED, 8), drawn(8, 5, 4)

    def total(x):
        return torch.linalg.svdvals(x - x.mean(dim=0))[:2].square().sum() / 7

    expected = (total(x + 1e-5 * along) - total(x - 1e-5 * along)) / 2e-5
    given = x.to(dtype).requires_grad_()
    lae_torch.pca(given, 2).values.sum().backward()
    assert (given.grad.double() * along).sum().item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("p", "function", "message"),
    [
        (2, lambda found: found.components[0, 0], "components 0 and 1 have the same variance"),
        (1, lambda found: found.components[0, 0] ** 2, "component 1 and the next have nearly the same variance"),
        (4, lambda found: found.components[:, 0].square().sum(), "component 4 and the next"),
    ],
)
def test_what_has_no_gradient_raises(dtype, p, function, message):
    x = with_values(TIED, 8).to(dtype).requires_grad_()
    with pytest.raises(torch.linalg.LinAlgError, match=message):
        function(lae_torch.pca(x, p)).backward()


def test_there_is_no_second_derivative():
    x = drawn(9, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(lae_torch.pca(x, 2).values.sum(), x, create_graph=True)


@pytest.mark.parametrize(("m", "d", "shift"), [(600, 20, 0.0), (600, 20, 1e3), (40, 300, 0.0)])
def test_float32_gradients_are_those_of_float64(m, d, shift):
    x = (drawn(m, d) * torch.linspace(3, 1, d) + shift).float()
    target = drawn(d, d, 5)

    def gradient(dtype):
        given = x.to(dtype, copy=True).requires_grad_()
        found = lae_torch.pca(given, 3)
        rebuilt = found.components.T @ found.components
        (found.values.sum() + (rebuilt * target.to(dtype)).sum()).backward()
        return given.grad.double()

    single, double = gradient(torch.float32), gradient(torch.float64)
    assert torch.linalg.norm(single - double) < 2e-3 * torch.linalg.norm(double)


def test_half_precision_is_computed_in_float32():
    x = drawn(30, 4).bfloat16().requires_grad_()
    found = lae_torch.pca(x, 2)
    found.values.sum().backward()
    assert found.values.dtype == torch.float32 and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "p", "error", "message"),
    [
        (np.zeros((4, 3)), 2, TypeError, "x is an object of the type 'ndarray'"),
        (torch.zeros(4, 3, dtype=torch.int64), 2, TypeError, "torch.int64"),
        (torch.zeros(4), 1, ValueError, r"x has shape \(4,\)"),
        (torch.zeros(1, 3), 1, ValueError, "at least 2"),
        (torch.zeros(5, 3), 4, ValueError, "p=4"),
        (torch.zeros(5, 3), 0, ValueError, "p=0"),
    ],
)
def test_bad_input(x, p, error, message):
    with pytest.raises(error, match=message):
        lae_torch.pca(x, p)
