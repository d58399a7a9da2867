"""Losses of the family with the oracle's parameters, at latent width 3: name -> (library object, parameters)."""

from lae_fast import losses

P = 3
PRIOR = (0.5, 0.2, 0.3)
CASES = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.7), {"lam": 0.7}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.4, 0.9]), {"lams": (0.1, 0.4, 0.9)}),
    "product_l2": (losses.product_l2(0.6), {"lam": 0.6}),
    "mixed_l2": (losses.mixed_l2(0.8, 0.25, 0.75), {"lam": 0.8, "w_sum": 0.25, "w_product": 0.75}),
}
