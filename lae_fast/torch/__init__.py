"""The losses, rules and PCA of the library inside PyTorch (extra `torch`): autograd functions, modules, a layer.

Nothing here is loaded by `import lae_fast`.  `_inputs.py` checks tensors, `_prefix_loss.py` has the autograd functions,
`_products.py` what they multiply with, `_losses.py` the public functions and modules, `_rules.py` the rules that are no
gradients, `_layer.py` the layer and `_pca.py` the differentiable PCA.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("lae_fast.torch needs PyTorch: pip install 'lae-fast[torch]'.") from error

from ._layer import LinearAutoencoderLayer
from ._losses import (
    MixedL2Loss,
    MSELoss,
    NestedDropoutLoss,
    NonuniformL2Loss,
    OrderedLoss,
    PrefixLoss,
    ProductL2Loss,
    SumL2Loss,
    mixed_l2_loss,
    mse_loss,
    nested_dropout_loss,
    nonuniform_l2_loss,
    ordered_loss,
    prefix_loss,
    product_l2_loss,
    sum_l2_loss,
)
from ._pca import PCAResult, pca
from ._products import SecondMoments
from ._rules import (
    add_rule_gradients_,
    alpha_eigengame_step_,
    gha_step_,
    mu_eigengame_step_,
    normalise_rows_,
    oja_step_,
    rag_step_,
)

__all__ = [
    "LinearAutoencoderLayer",
    "MSELoss",
    "MixedL2Loss",
    "NestedDropoutLoss",
    "NonuniformL2Loss",
    "OrderedLoss",
    "PCAResult",
    "PrefixLoss",
    "ProductL2Loss",
    "SecondMoments",
    "SumL2Loss",
    "add_rule_gradients_",
    "alpha_eigengame_step_",
    "gha_step_",
    "mixed_l2_loss",
    "mse_loss",
    "mu_eigengame_step_",
    "nested_dropout_loss",
    "nonuniform_l2_loss",
    "normalise_rows_",
    "oja_step_",
    "ordered_loss",
    "pca",
    "prefix_loss",
    "product_l2_loss",
    "rag_step_",
    "sum_l2_loss",
]
