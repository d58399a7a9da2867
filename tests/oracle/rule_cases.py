"""Losses, weights and directions for the tests of rules."""

import numpy as np

from lae_fast import losses, rules

P, D, Q = 3, 6, 4
PRIOR = (0.5, 0.2, 0.3)
FAMILY = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.7), {"lam": 0.7}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.4, 0.9]), {"lams": (0.1, 0.4, 0.9)}),
    "product_l2": (losses.product_l2(0.6), {"lam": 0.6}),
    "mixed_l2": (losses.mixed_l2(0.8, 0.25, 0.75), {"lam": 0.8, "w_sum": 0.25, "w_product": 0.75}),
}
ENCODER_ONLY = ("oja", "gha", "alpha_eigengame", "mu_eigengame")


def weights(q, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(q, P)) * scale, rng.normal(size=(P, D)) * scale


def directions(rule, loss, a, b, sxx, sxy=None):
    """(direction of A' (p, q), direction of B (p, d)) through the library's p x p matrices."""
    z_b = b @ sxx
    gram_latent = z_b @ b.T
    z_a = a.T @ (sxx if sxy is None else sxy.T)
    cross = z_b if sxy is None else b @ sxy
    encoder = rules.apply(rules.encoder_matrices(rule, loss, a.T @ a, gram_latent), z_b, z_a, b)
    if not rules.resolve(rule).has_decoder:
        return None, encoder
    decoder = rules.apply(rules.decoder_matrices(rule, loss, b @ b.T, gram_latent), cross, None, a.T)
    return decoder, encoder
