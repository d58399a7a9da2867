"""The layer: training, widths, its state, and estimators there and back."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lae-fast[torch]'")

import lae_fast as lf  # noqa: E402
from lae_fast import torch as lae_torch  # noqa: E402

D, P = 8, 3


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((200, D)) * np.arange(D, 0, -1) + 5).astype(np.float32)


def train(layer, x):
    gradient = layer.rule.name == "gradient"
    optimizer = torch.optim.Adam(layer.parameters(), 0.04) if gradient else torch.optim.SGD(layer.parameters(), 0.005)
    for _ in range(800):
        optimizer.zero_grad()
        if gradient:
            layer.loss(x).backward()
        else:
            layer.rule_backward(x)
        optimizer.step()
        layer.after_step()


@pytest.mark.parametrize("rule", ["gradient", "gha", "mu_eigengame"])
def test_it_learns_the_directions_in_their_order(rows, rule):
    torch.manual_seed(0)
    x = torch.from_numpy(rows)
    layer = lae_torch.LinearAutoencoderLayer(D, P, rule=rule, center=True)
    layer.set_mean(x)
    train(layer, x)
    truth = lf.PCA(P).fit(rows).components_.T
    assert lf.metrics.ratio_tp(truth, layer.decoder.detach().numpy()) == 1.0


def test_widths_are_prefixes(rows):
    torch.manual_seed(0)
    x = torch.from_numpy(rows).reshape(20, 10, D)
    layer = lae_torch.LinearAutoencoderLayer(D, P, q=5)
    assert layer.encode(x).shape == (20, 10, P) and layer(x).shape == (20, 10, 5)
    assert torch.equal(layer.encode(x, 2), layer.encode(x)[..., :2])
    expected = x @ layer.encoder[:2].T @ layer.decoder[:, :2].T
    torch.testing.assert_close(layer(x, 2), expected)
    with pytest.raises(ValueError, match="width=4"):
        layer.encode(x, 4)


@pytest.mark.parametrize(("scale", "center"), [("mean", True), ("sum", False)])
def test_its_loss_is_that_of_centred_rows(rows, scale, center):
    x = torch.from_numpy(rows)
    layer = lae_torch.LinearAutoencoderLayer(D, P, loss="ordered", scale=scale, center=center)
    if center:
        layer.set_mean(x)
    shifted = x - layer.mean if center else x
    expected = lae_torch.ordered_loss(layer.decoder, layer.encoder, shifted, scale=scale)
    torch.testing.assert_close(layer.loss(x), expected)


def test_losses_of_targets_take_off_their_mean(rows):
    x = torch.from_numpy(rows)
    y = x[:, :2] * 2
    layer = lae_torch.LinearAutoencoderLayer(D, P, loss="mse", q=2, center=True)
    layer.set_mean(x, y)
    torch.testing.assert_close(layer.loss(x, y), ((layer(x) - y) ** 2).sum() / len(x))


def test_its_state_comes_back(rows, tmp_path):
    x = torch.from_numpy(rows)
    layer = lae_torch.LinearAutoencoderLayer(D, P, center=True)
    layer.set_mean(x)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    again = lae_torch.LinearAutoencoderLayer(D, P, center=True)
    again.load_state_dict(torch.load(tmp_path / "layer.pt"))
    assert torch.equal(again(x), layer(x))
    assert set(layer.state_dict()) == {"encoder", "decoder", "mean", "target_mean"}
    assert set(lae_torch.LinearAutoencoderLayer(D, P, rule="oja").state_dict()) == {"encoder"}
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert "ordered" in repr(layer) and "d=8, p=3" in repr(layer)


ESTIMATORS = {
    "PCA": lambda: lf.PCA(P),
    "PCA, whitened and standardized": lambda: lf.PCA(P, whiten=True, standardize=True),
    "IncrementalPCA": lambda: lf.IncrementalPCA(P),
    "TruncatedSVD": lambda: lf.TruncatedSVD(P),
    "LinearAutoencoder": lambda: lf.LinearAutoencoder(P, loss="mse", max_iter=50),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_from_an_estimator(rows, name, dtype):
    estimator = ESTIMATORS[name]().fit(rows)
    layer = lae_torch.LinearAutoencoderLayer.from_estimator(estimator, dtype=dtype)
    assert layer.encoder.dtype == (dtype or torch.float32)
    x = torch.from_numpy(rows).to(layer.encoder.dtype)
    codes = estimator.transform(rows)
    np.testing.assert_allclose(layer.encode(x).detach(), codes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer(x).detach(), estimator.inverse_transform(codes), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rule", ["gradient", "gha"])
@pytest.mark.parametrize("center", [False, True])
def test_to_an_estimator(rows, rule, center):
    x = torch.from_numpy(rows)
    layer = lae_torch.LinearAutoencoderLayer(D, P, rule=rule, center=center)
    if center:
        layer.set_mean(x)
    estimator = layer.to_estimator()
    assert isinstance(estimator, lf.LinearAutoencoder) and not estimator.converged_
    codes = estimator.transform(rows)
    np.testing.assert_allclose(codes, layer.encode(x).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(estimator.inverse_transform(codes), layer(x).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(estimator.components_, axis=1), 1, rtol=1e-6)
    assert estimator.get_feature_names_out().tolist() == [f"linearautoencoder{i}" for i in range(P)]
    again = lae_torch.LinearAutoencoderLayer.from_estimator(estimator)
    np.testing.assert_allclose(again(x).detach(), layer(x).detach(), rtol=1e-4, atol=1e-5)


def test_an_estimator_that_is_not_fitted():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        lae_torch.LinearAutoencoderLayer.from_estimator(lf.PCA(P))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, "p=0"),
        ({"rule": "alternating"}, "takes no rate"),
        ({"rule": "gha", "loss": "mse"}, "has no loss"),
        ({"rule": "rag", "loss": "ordered"}, "'mse' only"),
        ({"rule": "gha", "q": 4}, "q=4 must be d=8"),
        ({"scale": "median"}, "scale='median'"),
        ({"loss": "nothing"}, "'ordered'"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        lae_torch.LinearAutoencoderLayer(**{"d": D, "p": P, **arguments})


def test_bad_use(rows):
    x = torch.from_numpy(rows)
    layer = lae_torch.LinearAutoencoderLayer(D, P)
    with pytest.raises(ValueError, match=r"loss\(x\)\.backward"):
        layer.rule_backward(x)
    with pytest.raises(ValueError, match="center=True"):
        layer.set_mean(x)
    with pytest.raises(AttributeError, match="nothing"):
        layer.nothing  # noqa: B018
