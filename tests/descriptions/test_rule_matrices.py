"""The p x p matrices of the rules against the oracle's loops, and their errors."""

import numpy as np
import pytest

from lae_fast import losses, rules
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import CASES, P
from tests.oracle.rule_cases import ENCODER_ONLY, D, Q, directions, weights


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_gradient_matrices(moments, kind, targets):
    sxx, sxy = moments[0], moments[1] if targets else None
    loss, parameters = CASES[kind]
    a, b = weights(Q if targets else D)
    decoder, encoder = directions("gradient", loss, a, b, sxx, sxy)
    da, db = naive.gradients(kind, a, b, sxx, sxy, **parameters)
    np.testing.assert_allclose(encoder, db, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(decoder.T, da, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ENCODER_ONLY)
def test_encoder_only_matrices(moments, rule):
    _, b = weights(D)
    _, encoder = directions(rule, None, np.zeros((D, P)), b, moments[0])
    np.testing.assert_allclose(encoder, naive.encoder_only_direction(rule, b, moments[0]), rtol=1e-12, atol=1e-12)


def test_rag_matrices(moments):
    a, b = weights(D)
    decoder, encoder = directions("rag", "mse", a, b, moments[0])
    da, db = naive.rag_direction(a, b, moments[0])
    np.testing.assert_allclose(encoder, db, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(decoder.T, da, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["gradient", "rag", *ENCODER_ONLY])
def test_float32_stays_float32(moments, rule):
    loss = CASES["mixed_l2"][0] if rule == "gradient" else None
    a, b = weights(D)
    single = [m.astype(np.float32) for m in (a, b, moments[0])]
    for got, expected in zip(directions(rule, loss, *single), directions(rule, loss, a, b, moments[0]), strict=True):
        if expected is not None:
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_zero_and_diagonal_matrices_cost_no_product(moments):
    """The kernels rely on this: None for zero, one-dimensional for diagonal."""
    gram = np.eye(P)
    plain = rules.encoder_matrices("gradient", "ordered", gram, gram)
    assert plain.on_weights is None
    assert plain.on_decoder_product.ndim == 1
    assert rules.encoder_matrices("gradient", losses.sum_l2(1.0), gram, gram).on_weights.ndim == 1
    assert rules.encoder_matrices("gradient", losses.product_l2(1.0), gram, gram).on_weights.ndim == 2
    assert rules.encoder_matrices("gradient", losses.sum_l2(0.0), gram, gram).on_weights is None
    hebbian = rules.encoder_matrices("gha", None, None, gram)
    assert hebbian.on_encoder_product.ndim == 1
    assert hebbian.on_decoder_product is None
    assert rules.decoder_matrices("gradient", "mse", None, gram).on_decoder_product is None


class TestErrorsOfTheMatrices:
    def test_no_loss_for_encoder_only_rules(self):
        with pytest.raises(ValueError, match="has no loss"):
            rules.encoder_matrices("gha", "mse", None, np.eye(2))

    def test_no_decoder(self):
        with pytest.raises(ValueError, match="transpose of the encoder"):
            rules.decoder_matrices("oja", None, None, np.eye(2))

    @pytest.mark.parametrize("function", [rules.encoder_matrices, rules.decoder_matrices])
    def test_alternating_has_no_direction(self, function):
        with pytest.raises(ValueError, match="takes no rate"):
            function("alternating", None, np.eye(2), np.eye(2))

    def test_rag_with_another_loss(self):
        with pytest.raises(ValueError, match="'mse' only"):
            rules.encoder_matrices("rag", "ordered", np.eye(2), np.eye(2))

    def test_vae_is_outside(self):
        with pytest.raises(ValueError, match="no p x p matrices"):
            rules.encoder_matrices("gradient", "vae", np.eye(2), np.eye(2))

    def test_product_needs_the_encoder_gram(self):
        with pytest.raises(ValueError, match="gram_encoder"):
            rules.decoder_matrices("gradient", losses.product_l2(1.0), None, np.eye(2))

    def test_synchronise_shapes(self):
        with pytest.raises(ValueError, match="transposes"):
            rules.synchronise(np.ones((2, 3)), np.ones((4, 2)))

    def test_row_of_no_variance(self):
        """alpha-EigenGame divides by G_jj; a parent without variance pulls nobody."""
        gram = np.array([[0.0, 0.0], [0.0, 2.0]])
        matrices = rules.encoder_matrices("alpha_eigengame", None, None, gram)
        np.testing.assert_array_equal(matrices.on_encoder_product, -np.eye(2))
        np.testing.assert_array_equal(rules.normalise_rows(np.zeros((2, 3))), np.zeros((2, 3)))
