"""The losses inside PyTorch: against their definitions and finite differences, on every path; and bad input."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")

import lae_fast as lf  # noqa: E402
from lae_fast import losses  # noqa: E402
from lae_fast import torch as lae_torch  # noqa: E402
from lae_fast.torch import _products  # noqa: E402
from tests.oracle import naive_autoencoder  # noqa: E402
from tests.oracle.loss_cases import CASES, PRIOR, P  # noqa: E402

D, Q, M = 6, 5, 8


def drawn(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


def weights(q=D, dtype=torch.float64, **like):
    return drawn(q, P, dtype=dtype, **like).requires_grad_(), drawn(P, D, dtype=dtype, **like).requires_grad_()


def arrays(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.fixture
def by_kernels(monkeypatch):
    """Rows go to our kernels however few they are."""
    monkeypatch.setattr(_products, "_FEWEST_FLOPS", 0.0)


@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("kind", CASES)
def test_value_is_that_of_the_definition(kind, scale):
    described, parameters = CASES[kind]
    a, b = weights(Q)
    x, y = drawn(M, D), drawn(M, Q)
    found = lae_torch.prefix_loss(a, b, x, y, loss=described, scale=scale)
    expected = naive_autoencoder.loss(kind, *arrays(a, b, x, y), scale=scale, **parameters)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.every
@pytest.mark.parametrize("kind", CASES)
def test_first_and_second_derivatives_on_rows_with_targets(kind):
    def loss(a, b, x, y):
        return lae_torch.prefix_loss(a, b, x, y, loss=CASES[kind][0])

    given = (*weights(Q), drawn(M, D).requires_grad_(), drawn(M, Q).requires_grad_())
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


@pytest.mark.every
@pytest.mark.parametrize("kind", CASES)
def test_first_and_second_derivatives_on_rows_themselves(kind):
    def loss(a, b, x):
        return lae_torch.prefix_loss(a, b, x, loss=CASES[kind][0])

    given = (*weights(), drawn(M, D).requires_grad_())
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


@pytest.mark.every
@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("data", ["kernels", "moments", "moments with targets"])
def test_first_and_second_derivatives_on_constant_data(kind, data, by_kernels):
    x, y = drawn(M, D), drawn(M, Q)
    if data != "kernels":
        pair = (x.numpy(), y.numpy()) if data.endswith("targets") else (x.numpy(),)
        x = lae_torch.SecondMoments.from_moments(lf.Moments.from_data(*pair), torch.float64)

    def loss(a, b):
        return lae_torch.prefix_loss(a, b, x, loss=CASES[kind][0])

    given = weights(Q if data.endswith("targets") else D)
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradgradcheck(loss, given)


def test_half_of_the_gradients_may_be_wanted():
    a, b = weights(Q)
    x, y = drawn(M, D).requires_grad_(), drawn(M, Q).requires_grad_()
    every = torch.autograd.grad(lae_torch.ordered_loss(a, b, x, y), (a, b, x, y))
    given = [a, b, x, y]
    for i in range(4):
        alone = [tensor.detach() for tensor in given]
        alone[i].requires_grad_()
        found = torch.autograd.grad(lae_torch.ordered_loss(*alone), alone[i])[0]
        torch.testing.assert_close(found, every[i])
    assert not lae_torch.ordered_loss(*(tensor.detach() for tensor in given)).requires_grad


def written_out(a, b, x):
    """The ordered loss as people write it: each prefix rebuilds all rows."""
    codes = x @ b.T
    return sum(((x - codes[:, :k] @ a[:, :k].T) ** 2).sum() for k in range(1, len(b) + 1)) / len(x)


@pytest.mark.parametrize("layout", ["C", "F", "every second", "three dimensions", "rows that need gradients"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts_and_dtypes_agree_with_the_loss_written_out(dtype, layout, by_kernels):
    x = drawn(40, D, dtype=dtype)
    a, b = weights(dtype=dtype)
    given = {
        "C": x,
        "F": x.T.contiguous().T,
        "every second": torch.repeat_interleave(x, 2, dim=1)[:, ::2],
        "three dimensions": x.reshape(5, 8, D),
        "rows that need gradients": x.clone().requires_grad_(),
    }[layout]
    found, expected = lae_torch.ordered_loss(a, b, given), written_out(a, b, x)
    torch.testing.assert_close(found, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    for one, other in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(expected, (a, b))):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.needs_jit
def test_rows_reach_the_kernels_without_a_copy(monkeypatch, by_kernels):
    """With both weight matrices at once where a gradient will be asked for."""
    seen = []
    original = _products.KernelRows.multiplied

    def watched(self, decoder, encoder, with_decoder):
        seen.append((self._x.data_ptr(), with_decoder))
        return original(self, decoder, encoder, with_decoder)

    monkeypatch.setattr(_products.KernelRows, "multiplied", watched)
    x = drawn(40, D, dtype=torch.float32)
    a, b = weights(dtype=torch.float32)
    lae_torch.ordered_loss(a, b, x).backward()
    with torch.no_grad():
        lae_torch.ordered_loss(a, b, x)
    assert seen == [(x.data_ptr(), True), (x.data_ptr(), False)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype, by_kernels):
    a, b = weights(dtype=dtype)
    x = drawn(M, D).to(dtype).requires_grad_()
    found = lae_torch.ordered_loss(a, b, x)
    found.backward()
    assert found.dtype == torch.float32
    exact = [tensor.detach().double().requires_grad_() for tensor in (a, b, x)]
    expected = lae_torch.ordered_loss(*exact)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for tensor, wide in zip((a, b, x), exact):
        assert tensor.grad.dtype == dtype
        torch.testing.assert_close(tensor.grad, wide.grad.to(dtype), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("needs_rows", [False, True])
def test_autocast_does_not_round_the_products(needs_rows):
    a, b = weights(dtype=torch.float32)
    x = drawn(M, D, dtype=torch.float32).requires_grad_(needs_rows)
    expected = torch.autograd.grad(lae_torch.ordered_loss(a, b, x), (a, b))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(lae_torch.ordered_loss(a, b, x), (a, b))
    for one, other in zip(found, expected):
        assert torch.equal(one, other)


def test_moments_are_those_of_centred_rows():
    x = drawn(50, D) + 3
    a, b = weights()
    moments = lf.Moments.from_data(x.numpy())
    found = lae_torch.ordered_loss(a, b, moments)
    torch.testing.assert_close(found, lae_torch.ordered_loss(a, b, x - x.mean(dim=0)))
    assert found.item() == pytest.approx(lf.loss(*arrays(a, b), moments), rel=1e-12)


FUNCTIONS = {
    "mse": (lae_torch.mse_loss, lae_torch.MSELoss, {}),
    "ordered": (lae_torch.ordered_loss, lae_torch.OrderedLoss, {}),
    "nested_dropout": (lae_torch.nested_dropout_loss, lae_torch.NestedDropoutLoss, {"prior": PRIOR}),
    "sum_l2": (lae_torch.sum_l2_loss, lae_torch.SumL2Loss, {"lam": 0.7}),
    "nonuniform_l2": (lae_torch.nonuniform_l2_loss, lae_torch.NonuniformL2Loss, {"lams": (0.1, 0.4, 0.9)}),
    "product_l2": (lae_torch.product_l2_loss, lae_torch.ProductL2Loss, {"lam": 0.6}),
    "mixed_l2": (lae_torch.mixed_l2_loss, lae_torch.MixedL2Loss, {"lam": 0.8, "w_sum": 0.25, "w_product": 0.75}),
}


def test_every_loss_of_the_family_has_a_function_and_a_module():
    in_family = {name for name in losses.names() if getattr(losses, name).in_family}
    assert set(FUNCTIONS) == in_family == set(CASES)
    assert set(lae_torch.__all__) >= {part.__name__ for row in FUNCTIONS.values() for part in row[:2]}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_and_modules_are_the_loss_of_that_name(kind):
    function, module, parameters = FUNCTIONS[kind]
    a, b = weights(Q)
    x, y = drawn(M, D), drawn(M, Q)
    expected = lae_torch.prefix_loss(a, b, x, y, loss=CASES[kind][0])
    assert torch.equal(function(a, b, x, y, **parameters), expected)
    made = module(**parameters)
    assert torch.equal(made(a, b, x, y), expected)
    assert kind in repr(made) and "mean" in repr(made)


def test_the_default_prior_is_that_of_the_losses():
    a, b = weights()
    x = drawn(M, D)
    expected = lae_torch.prefix_loss(a, b, x, loss="nested_dropout")
    assert torch.equal(lae_torch.nested_dropout_loss(a, b, x), expected)
    assert torch.equal(lae_torch.NestedDropoutLoss()(a, b, x), expected)


def meta(tensor):
    return torch.empty(tensor.shape, device="meta")


BAD = {
    "an array": (lambda a, b, x: (a, b, x.numpy()), TypeError, r"x is an object of the type 'ndarray': pass a tensor"),
    "no tensor": (lambda a, b, x: (a.detach().numpy(), b, x), TypeError, "decoder is an object of the type 'ndarray'"),
    "integers": (lambda a, b, x: (a, b.long(), x), TypeError, "encoder is a torch.strided tensor of torch.int64"),
    "sparse": (lambda a, b, x: (a, b, x.to_sparse()), TypeError, r"x is a tensor of layout .*x\.to_dense\(\)"),
    "complex": (lambda a, b, x: (a, b, x.to(torch.complex64)), TypeError, "x holds complex numbers"),
    "one dimension": (lambda a, b, x: (a[:, 0], b, x), ValueError, r"decoder has shape \(6,\): it must be a matrix"),
    "two widths": (lambda a, b, x: (a[:, :2], b, x), ValueError, r"\(6, 2\) and encoder \(3, 6\): .* the same p"),
    "width of x": (lambda a, b, x: (a, b, x[:, :4]), ValueError, r"x has shape \(8, 4\): the encoder asks for"),
    "no rows": (lambda a, b, x: (a, b, x[:0]), ValueError, r"x has shape \(0, 6\), so no rows"),
    "device": (lambda a, b, x: (a, b, meta(x)), ValueError, "x is on the device 'meta' and the encoder on 'cpu'"),
    "weights' device": (lambda a, b, x: (meta(a), b, x), ValueError, "decoder is on the device 'meta'"),
    "targets are missing": (lambda a, b, x: (a[:4], b, x), ValueError, "pass y, the targets"),
    "rows of y": (lambda a, b, x: (a, b, x, x[:3].clone()), ValueError, "y has 3 rows, but x has 8"),
    "width of y": (lambda a, b, x: (a, b, x, x[:, :2]), ValueError, r"y has shape \(8, 2\): the decoder asks for"),
    "moments' width": (
        lambda a, b, x: (a, b, lf.Moments.from_data(x[:, :4].numpy())), ValueError, r"moments ask for \(4, p\)",
    ),
    "y beside moments": (
        lambda a, b, x: (a, b, lf.Moments.from_data(x.numpy()), x), ValueError, "y was given beside moments",
    ),
    "moments with gradients": (
        lambda a, b, x: (a, b, lae_torch.SecondMoments((x.T @ x).requires_grad_(), None, 1.0, 8.0)), ValueError,
        "xx requires gradients, but moments are constants",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    build, error, message = BAD[case]
    with pytest.raises(error, match=message):
        lae_torch.ordered_loss(*build(*weights(), drawn(M, D)))


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("vae", TypeError, "vae_loss"),
        ("stochastic_nested_dropout", TypeError, "its expectation, losses.nested_dropout"),
        ("nothing", ValueError, "'ordered'"),
        (losses.nonuniform_l2([1, 2]), ValueError, "2 entries but the latent width is p = 3"),
    ],
)
def test_losses_that_do_not_fit(loss, error, message):
    with pytest.raises(error, match=message):
        lae_torch.prefix_loss(*weights(), drawn(M, D), loss=loss)


def test_whole_numbers_are_taken_as_floats():
    a, b = weights(dtype=torch.float32)
    x = torch.arange(48).reshape(M, D)
    torch.testing.assert_close(lae_torch.ordered_loss(a, b, x), lae_torch.ordered_loss(a, b, x.float()))


def test_nan_gives_nan_as_everywhere_in_pytorch(by_kernels):
    x = drawn(M, D)
    x[2, 1] = torch.nan
    found = lae_torch.ordered_loss(*weights(), x)
    assert np.isnan(found.item())


def test_it_trains_to_the_principal_directions():
    x = drawn(300, D) * torch.arange(D, 0, -1)
    x = x - x.mean(dim=0)
    a, b = (0.1 * part.detach() for part in weights())
    a.requires_grad_()
    b.requires_grad_()
    optimizer = torch.optim.Adam([a, b], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        lae_torch.ordered_loss(a, b, x).backward()
        optimizer.step()
    truth = lf.top_eigenpairs(x.numpy(), P).vectors
    assert lf.metrics.ratio_tp(truth, a.detach().numpy()) == 1.0


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.empty(100_000, 100), True),
        (torch.empty(100, 100_000, dtype=torch.float64).T, True),
        (torch.empty(100_000, 200)[:, ::2], False),
        (torch.empty(100, 100), False),
        (torch.empty(100_000, 100, device="meta"), False),
        (torch.empty(100_000, 100, dtype=torch.bfloat16), False),
    ],
)
def test_which_rows_the_kernels_read(x, expected):
    assert _products.KernelRows.pay(x, 20) is expected
