"""Losses, weights and directions for the tests of rules."""

import numpy as np

from lae_fast import rules
from tests.oracle.loss_cases import P

D, Q = 6, 4
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
