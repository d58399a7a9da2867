"""Update rules as frozen descriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .. import losses
from .._registry import Registry
from ..validation import check_bool, check_real

COUPLINGS = ("untied", "synchronised", "tied")

# Losses that have an exact solve for each of the two matrices here.
EXACT_LOSSES = ("mse", "ordered", "nested_dropout", "sum_l2")


@dataclass(frozen=True)
class Rule:
    """Base of all rules.

    Attributes
    ----------
    name : str
        The name users type.
    update : str
        The update in the notation of docs/math.md, with rate a.
    source : str
        Where the rule comes from.
    has_decoder : bool
        False if the rule has one weight matrix only; then the decoder is the transpose of the encoder.
    takes_loss : bool
        False if the rule has no loss.
    normalises_rows : bool
        True if every step ends by scaling each row of B to length 1.
    iterative : bool
        False if the rule takes no rate and no optimizer: exact solves, or rates of its own.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.gha().update, rules.gha().source
    ('B <- B + a (B S - tril(G) B)', 'Sanger 1989; Bao et al. 2020, Sec. 6.1')
    >>> [name for name in rules.names() if rules.from_name(name).has_decoder]
    ['gradient', 'rag', 'alternating']
    """

    name: ClassVar[str] = ""
    update: ClassVar[str] = ""
    source: ClassVar[str] = ""
    has_decoder: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = True
    normalises_rows: ClassVar[bool] = False
    iterative: ClassVar[bool] = True


@dataclass(frozen=True)
class gradient(Rule):
    """Gradient step on encoder and decoder.

    Parameters
    ----------
    sequential : bool, default False
        False: both gradients are taken at the old weights, as automatic differentiation does.  True: the decoder's
        gradient is taken with the new encoder, as Kunin et al. 2019, Alg. 1 ("untied") does; it costs no further
        product in full-batch training, because B Sxx of the new encoder is what the next iteration starts from.

    Examples
    --------
    >>> from lae_fast import LinearAutoencoder, rules
    >>> model = LinearAutoencoder(3, rule=rules.gradient(sequential=True))
    >>> rules.gradient().update
    'B <- B - a dL/dB;  A <- A - a dL/dA'
    """

    sequential: bool = False
    name: ClassVar[str] = "gradient"
    update: ClassVar[str] = "B <- B - a dL/dB;  A <- A - a dL/dA"
    source: ClassVar[str] = "Oftadeh et al. 2020; Kunin et al. 2019, Alg. 1; Bao et al. 2020"

    def __post_init__(self) -> None:
        check_bool(self.sequential, "sequential")


@dataclass(frozen=True)
class rag(Rule):
    """Rotation augmented gradient: mse gradient plus a rotation of the latent space that keeps AB to first order.

    The gradient is that of |Y - X B'A'|^2 at scale "mean" with G at the same scale; at scale "sum" both grow by the
    number of samples, so only the rate changes.  With any optimizer but plain descent the rotation joins the gradient
    BEFORE the optimizer.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.default_loss(rules.rag()), rules.rag().has_decoder
    (mse(), True)
    """

    name: ClassVar[str] = "rag"
    update: ClassVar[str] = "B <- (I + a R) B - a dL/dB;  A <- A (I - a R) - a dL/dA;  R = (striu(G) - stril(G))/2"
    source: ClassVar[str] = "Bao et al. 2020, Alg. 1"


@dataclass(frozen=True)
class oja(Rule):
    """Oja's subspace rule: finds the principal subspace with orthonormal rows, not the directions.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> S, B = np.diag([4.0, 1.0]), np.array([[0.8, 0.6], [-0.6, 0.8]])
    >>> matrices = rules.encoder_matrices(rules.oja(), None, None, B @ S @ B.T)
    >>> np.allclose(rules.apply(matrices, B @ S, None, B), 0.0)  # at rest, though no row is an eigenvector
    True
    """

    name: ClassVar[str] = "oja"
    update: ClassVar[str] = "B <- B + a (B S - G B)"
    source: ClassVar[str] = "Oja 1982, 1992"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False


@dataclass(frozen=True)
class gha(Rule):
    """Generalised Hebbian algorithm.  For rows as components the mask keeps the LOWER triangle and the diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> rules.encoder_matrices(rules.gha(), None, None, G).on_weights
    array([[4., 0.],
           [1., 2.]])
    """

    name: ClassVar[str] = "gha"
    update: ClassVar[str] = "B <- B + a (B S - tril(G) B)"
    source: ClassVar[str] = "Sanger 1989; Bao et al. 2020, Sec. 6.1"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False


@dataclass(frozen=True)
class alpha_eigengame(Rule):
    """alpha-EigenGame: each row climbs its variance minus a generalised Gram-Schmidt penalty of its parents.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> rules.encoder_matrices(rules.alpha_eigengame(), None, None, G).on_encoder_product
    array([[-1.  ,  0.  ],
           [ 0.25, -1.  ]])
    """

    name: ClassVar[str] = "alpha_eigengame"
    update: ClassVar[str] = "B <- B + a (B S - stril(G_ij / G_jj) B S), rows normalised"
    source: ClassVar[str] = "Gemp et al. 2020"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False
    normalises_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class mu_eigengame(Rule):
    """mu-EigenGame: like GHA without the diagonal, which the normalisation of the rows replaces.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import rules
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> rules.encoder_matrices(rules.mu_eigengame(), None, None, G).on_weights
    array([[0., 0.],
           [1., 0.]])
    """

    name: ClassVar[str] = "mu_eigengame"
    update: ClassVar[str] = "B <- B + a (B S - stril(G) B), rows normalised"
    source: ClassVar[str] = "Gemp et al. 2021"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False
    normalises_rows: ClassVar[bool] = True


@dataclass(frozen=True)
class adaoja(Rule):
    """AdaOja: Oja's step with a rate for each component that tunes itself, rows orthonormalised in order.

    It takes no learning rate and no optimizer: component i is moved by 1 / b_i with b_i^2 the sum of the squares of all
    its steps so far.  The orthonormalisation orders the components, so it finds the directions.

    Parameters
    ----------
    start : float > 0, default 1e-5
        b_i before the first step, in units of the largest eigenvalue (the paper has 1e-5 in the units of the data).

    Examples
    --------
    >>> from lae_fast import LinearAutoencoder, rules
    >>> model = LinearAutoencoder(3, rule=rules.adaoja(start=1e-3))
    >>> rules.adaoja().iterative  # no rate and no optimizer to choose
    False
    """

    start: float = 1e-5
    name: ClassVar[str] = "adaoja"
    update: ClassVar[str] = "b_i^2 <- b_i^2 + |(B S)_i|^2;  B <- orth(B + diag(1 / b) B S)"
    source: ClassVar[str] = "Henriksen and Ward 2019"
    has_decoder: ClassVar[bool] = False
    takes_loss: ClassVar[bool] = False
    iterative: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", check_real(self.start, "start", above=0, below=math.inf))


@dataclass(frozen=True)
class alternating(Rule):
    """Exact minimisation over the encoder, then over the decoder.

    Without a penalty row i of B and column i of A are brought to one length after each iteration: only their product
    counts there, and a far start would leave them out of proportion.  With a penalty, which settles their lengths, they
    are left as they come.

    Examples
    --------
    >>> from lae_fast import LinearAutoencoder, rules
    >>> model = LinearAutoencoder(3, loss="mse", rule=rules.alternating())
    >>> rules.alternating().iterative, rules.EXACT_LOSSES
    (False, ('mse', 'ordered', 'nested_dropout', 'sum_l2'))
    """

    name: ClassVar[str] = "alternating"
    update: ClassVar[str] = "B <- argmin_B L(A, B);  A <- argmin_A L(A, B)"
    source: ClassVar[str] = "Oftadeh et al. 2020, Prop. 1 and 2; Kunin et al. 2019, Sec. 6.1"
    iterative: ClassVar[bool] = False


_RULES = Registry("rule", "rules", Rule, gradient, rag, oja, gha, alpha_eigengame, mu_eigengame, adaoja, alternating)


def names() -> tuple[str, ...]:
    """Return the names of all rules, a tuple of str.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.names()
    ('gradient', 'rag', 'oja', 'gha', 'alpha_eigengame', 'mu_eigengame', 'adaoja', 'alternating')
    """
    return _RULES.names()


def from_name(name: str) -> Rule:
    """Return the rule called `name`; ValueError listing the valid names, TypeError if it is no string.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.from_name("gradient")
    gradient(sequential=False)
    """
    return _RULES.from_name(name)


def resolve(rule: Rule | str) -> Rule:
    """Return `rule` as a Rule: an object as it is, a string through `from_name`; TypeError for anything else.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.resolve("oja"), rules.resolve(rules.adaoja(1e-4))
    (oja(), adaoja(start=0.0001))
    """
    given = _RULES.checked(rule)
    return from_name(given) if isinstance(given, str) else given


def default_loss(rule: Rule | str) -> losses.Loss | None:
    """Return the loss that "auto" means for `rule`: ordered for gradient and alternating, mse for rag, else None.

    Examples
    --------
    >>> from lae_fast import rules
    >>> rules.default_loss("gradient"), rules.default_loss("rag"), rules.default_loss("oja")
    (ordered(), mse(), None)
    """
    rule = resolve(rule)
    if isinstance(rule, (gradient, alternating)):
        return losses.ordered()
    if isinstance(rule, rag):
        return losses.mse()
    return None
