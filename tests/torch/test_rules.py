"""Rules that are no gradients: their directions and steps against the oracle, through optimizers of PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")

import lae_fast as lf  # noqa: E402
from lae_fast import torch as lae_torch  # noqa: E402
from lae_fast.torch import _products  # noqa: E402
from tests.oracle import naive_autoencoder  # noqa: E402

D, P, M = 6, 3, 40
STEPS = {
    "oja": lae_torch.oja_step_,
    "gha": lae_torch.gha_step_,
    "alpha_eigengame": lae_torch.alpha_eigengame_step_,
    "mu_eigengame": lae_torch.mu_eigengame_step_,
}


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((M, D)) * np.arange(D, 0, -1)
    return x - x.mean(axis=0), rng.standard_normal((D, P)), rng.standard_normal((P, D))


def tensors(*arrays):
    return [torch.from_numpy(array.copy()) for array in arrays]


@pytest.mark.parametrize("data", ["rows", "kernels", "moments"])
@pytest.mark.parametrize("rule", STEPS)
def test_step_of_an_encoder(drawn, rule, data, monkeypatch):
    x, _, b = drawn
    if data == "kernels":
        monkeypatch.setattr(_products, "_FEWEST_FLOPS", 0.0)
    s = x.T @ x / M
    expected = b - 1e-3 * naive_autoencoder.encoder_only_direction(rule, b, s)
    if rule.endswith("eigengame"):
        expected = naive_autoencoder.normalise_rows(expected)
    (encoder,) = tensors(b)
    STEPS[rule](encoder, lf.Moments.from_data(x) if data == "moments" else torch.from_numpy(x), 1e-3)
    np.testing.assert_allclose(encoder.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", ["mean", "sum"])
def test_rag_and_its_gradients(drawn, scale):
    x, a, b = drawn
    of_decoder, of_encoder = naive_autoencoder.rag_direction(a, b, x.T @ x / (M if scale == "mean" else 1))
    decoder, encoder, rows = tensors(a, b, x)
    lae_torch.add_rule_gradients_("rag", decoder, encoder, rows, scale=scale)
    lae_torch.add_rule_gradients_("rag", decoder, encoder, rows, scale=scale)  # gradients add up, as in backward
    np.testing.assert_allclose(decoder.grad.numpy(), 2 * of_decoder, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(encoder.grad.numpy(), 2 * of_encoder, rtol=1e-10, atol=1e-9)
    if scale == "mean":
        lae_torch.rag_step_(decoder, encoder, rows, 0.01)
        np.testing.assert_allclose(decoder.numpy(), a - 0.01 * of_decoder, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(encoder.numpy(), b - 0.01 * of_encoder, rtol=1e-10, atol=1e-12)


def test_sanger_by_an_optimizer_finds_the_directions(drawn):
    x, _, b = drawn
    encoder = torch.nn.Parameter(torch.from_numpy(0.1 * b))
    optimizer = torch.optim.SGD([encoder], lr=0.01, momentum=0.5)
    rows = torch.from_numpy(x)
    for _ in range(1500):
        optimizer.zero_grad()
        lae_torch.add_rule_gradients_("gha", None, encoder, rows)
        optimizer.step()
    truth = lf.top_eigenpairs(x, P).vectors
    assert lf.metrics.ratio_tp(truth, encoder.detach().numpy().T) == 1.0


def test_half_precision_weights_get_their_own_dtype(drawn):
    x, _, b = drawn
    (encoder,) = tensors(b)
    encoder = encoder.bfloat16()
    lae_torch.add_rule_gradients_("gha", None, encoder, torch.from_numpy(x).bfloat16())
    assert encoder.grad.dtype == torch.bfloat16


def test_a_zero_row_stays_zero():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert lae_torch.normalise_rows_(rows) is rows
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        ("gha", lambda a, b, x: (None, b, x.requires_grad_()), r"x requires gradients.*'gha'.*pass x\.detach\(\)"),
        ("rag", lambda a, b, x: (None, b, x), r"'rag' moves a decoder too"),
        ("gha", lambda a, b, x: (a, b, x), r"'gha' moves the encoder only"),
        ("rag", lambda a, b, x: (a[:4], b, x), r"'rag' is of X itself"),
        ("alternating", lambda a, b, x: (a, b, x), "takes no rate"),
        ("nothing", lambda a, b, x: (a, b, x), "'mu_eigengame'"),
        (
            "gha", lambda a, b, x: (None, b, lf.Moments.from_data(x.numpy(), x.numpy()[:, :2])),
            "moments without targets",
        ),
    ],
)  # fmt: skip
def test_bad_input(drawn, rule, change, message):
    x, a, b = drawn
    with pytest.raises(ValueError, match=message):
        lae_torch.add_rule_gradients_(rule, *change(*tensors(a, b, x)))


def test_a_rate_must_be_positive(drawn):
    x, _, b = drawn
    with pytest.raises(ValueError, match="rate=0"):
        lae_torch.gha_step_(*tensors(b, x), 0)
