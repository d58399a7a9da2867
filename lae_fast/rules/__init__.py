"""Update rules of linear autoencoders: frozen descriptions, and their p x p matrices.

Every iterative rule moves a weight matrix W, (p, n) with one row per component, against a direction

    direction = P1 Z_B + P2 Z_A + P3 W,        W <- W - rate * direction   (or through an optimizer)

with p x p matrices made from Gram matrices by one mask (docs/math.md Eq. 21 to 28).  For the encoder W = B (p, d),
Z_B = B Sxx and Z_A = A'Syx; for the decoder W = A' (p, q), Z_B = B Sxy and nothing takes the place of Z_A.  All
directions are descents: rules that the literature writes as ascents (Oja, GHA, EigenGame) carry the sign inside.

The functions here are plain NumPy.  They document the kernels, and compute where speed does not matter: values and
gradients of a model, chains of layers, the alternating rule.  Which losses, optimizers and couplings a rule goes with
is decided in training/compatibility.py.
"""

from ._matrices import (
    Matrices,
    apply,
    decoder_matrices,
    encoder_matrices,
    masked_gram,
    normalise_rows,
    rotation,
    stril,
    striu,
    synchronise,
)
from ._rules import (
    COUPLINGS,
    EXACT_LOSSES,
    Rule,
    adaoja,
    alpha_eigengame,
    alternating,
    default_loss,
    from_name,
    gha,
    gradient,
    mu_eigengame,
    names,
    oja,
    rag,
    resolve,
)

__all__ = [
    "COUPLINGS",
    "EXACT_LOSSES",
    "Matrices",
    "Rule",
    "adaoja",
    "alpha_eigengame",
    "alternating",
    "apply",
    "decoder_matrices",
    "default_loss",
    "encoder_matrices",
    "from_name",
    "gha",
    "gradient",
    "masked_gram",
    "mu_eigengame",
    "names",
    "normalise_rows",
    "oja",
    "rag",
    "resolve",
    "rotation",
    "stril",
    "striu",
    "synchronise",
]
