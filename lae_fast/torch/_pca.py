"""PCA that gradients flow through: eigenvalues, and components as far as they are determined.

With S = Xc'Xc / n, eigenpairs (l_i, v_i), and gradients g_i of the components,

    dL/dS = sum_i dL/dl_i v_i v_i' + sum_{i != j <= p} (g_i'v_j - g_j'v_i) / (2 (l_i - l_j)) v_j v_i' + sum_i w_i v_i',
    (l_i I - S) w_i = (I - V'V) g_i,       dL/dX = (2 / n) Xc sym(dL/dS)

The first sum over pairs is zero for what depends on the subspace alone, ties or not; the w_i, which ask for a gap
between l_p and l_p+1 only, come from conjugate gradients, so that no further eigenpair is needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .. import validation
from ..eigen.solve import top_eigenpairs
from ._inputs import check_float_tensor, compute_dtype, exact

# Iterations of conjugate gradients; a relative gap of 1e-4 takes about 1000 in float64.
_MOST_ITERATIONS = 2000


class PCAResult(NamedTuple):
    """What `pca` returns, in the dtype of its x.

    Attributes
    ----------
    values : tensor (p,)
        Explained variances, descending.
    components : tensor (p, d)
        Directions, by rows.
    mean : tensor (d,)
        Zero for center=False.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> found = lf.torch.pca(torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 1)
    >>> isinstance(found, lf.torch.PCAResult), found.components.shape, found.mean
    (True, torch.Size([1, 2]), tensor([0., 0.]))
    """

    values: torch.Tensor
    components: torch.Tensor
    mean: torch.Tensor


def pca(x: torch.Tensor, p: int, *, center: bool = True) -> PCAResult:
    """Leading p principal components, exact, with gradients by x (docs/embedding.md).

    The forward pass is `top_eigenpairs` for a tensor on the CPU, and PyTorch's SVD elsewhere. Nothing of the size of
    d x d is formed where rows are longer than they are many.

    Gradients of values are right wherever they exist; at ties, for functions that treat tied values alike. Gradients
    of functions of the subspace, such as the projector `components.T @ components` or rows rebuilt from their scores,
    are right at ties among the p components too. What depends on a single one of tied components has no gradient, and
    neither has the subspace where the p-th value equals the next: then `backward` raises.

    Parameters
    ----------
    x : tensor (m, d)
        Floats; half precision is computed in float32.
    p : int, 1 <= p <= min(m, d)
    center : bool
        Subtract the mean of the rows; the denominator of variances is m - 1 then, else m.

    Returns
    -------
    PCAResult
        Signs: the entry of largest magnitude of every component is positive.

    Raises
    ------
    TypeError, ValueError
        x is no matrix of floats, or p is out of range.
    torch.linalg.LinAlgError
        In `backward`: components that have no gradient, see above.
    RuntimeError
        In `backward` with create_graph=True: there is no second derivative.

    Warns
    -----
    ConvergenceWarning
        As `top_eigenpairs`.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    >>> values = lf.torch.pca(x, 1).values
    >>> values.sum().backward()
    >>> round(values.item(), 6), x.grad[:, 0]  # 8 / 3, and 2 x / 3
    (2.666667, tensor([ 1.3333, -1.3333,  0.0000,  0.0000], dtype=torch.float64))
    """
    check_float_tensor(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: it must be a matrix (m, d).")
    m, d = x.shape
    if m < 2:
        raise ValueError(f"x has {m} rows: a variance needs at least 2.")
    p = validation.check_integer(p, "p", low=1, high=min(m, d), high_is="the smaller side of x")
    x = x.to(compute_dtype(x))
    center = validation.check_bool(center, "center")
    mean = x.mean(dim=0) if center else torch.zeros_like(x[0])
    values, components = _PCA.apply(x, mean.detach(), p, center)
    return PCAResult(values, components, mean)


class _PCA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, mean: torch.Tensor, p: int, center: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.center, ctx.denominator = center, len(x) - 1.0 if center else float(len(x))
        with exact(x.device):
            values, components = _eigenpairs(x, mean, p, center)
        values = (values / ctx.denominator).to(x.dtype)
        ctx.save_for_backward(x, mean, values, components)
        return values, components

    @staticmethod
    def backward(ctx: Any, of_values: torch.Tensor, of_components: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # without this the second derivative would be zero, in silence
            raise RuntimeError("pca has no second derivative: call backward without create_graph=True.")
        x, mean, values, components = ctx.saved_tensors
        with exact(x.device):
            rows = x - mean if ctx.center else x  # a copy: products that are centred afterwards lose digits
            inner = torch.diag(of_values) + _between(values, of_components @ components.T, of_components)
            outer = _outside(rows, ctx.denominator, values, components, of_components)
            first = 2 * (inner @ components) + outer
            by_rows = (rows @ components.T) @ first + (rows @ outer.T) @ components
            return by_rows.div_(ctx.denominator), None, None, None


def _eigenpairs(x: torch.Tensor, mean: torch.Tensor, p: int, center: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, scale "sum", and components of rows."""
    if x.device.type == "cpu":
        pairs = top_eigenpairs(x.detach().numpy(), p, center=center)
        return torch.from_numpy(pairs.values), torch.from_numpy(pairs.vectors.T).to(x.dtype).contiguous()
    return _by_svd(x, mean, p, center)


def _by_svd(x: torch.Tensor, mean: torch.Tensor, p: int, center: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by PyTorch, wherever the rows are."""
    _, singular, rows = torch.linalg.svd(x - mean if center else x, full_matrices=False)
    components = rows[:p]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return singular[:p].square(), components * largest.sign()


def _between(values: torch.Tensor, cross: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """(g_i'v_j - g_j'v_i) / (2 (l_i - l_j)), zero on the diagonal and between ties that the function does not see."""
    skew = cross - cross.T
    gaps = values[:, None] - values
    eps = torch.finfo(values.dtype).eps
    lengths = torch.linalg.vector_norm(gradients, dim=1)
    unseen = skew.abs() <= 100 * eps * (lengths[:, None] + lengths)
    near = gaps.abs() <= eps**0.5 * values[0]
    tied = (gaps.abs() <= 8 * eps * values[0]) & ~unseen
    tied.fill_diagonal_(False)
    if bool(tied.any()):
        i, j = (int(k) for k in torch.nonzero(tied)[0])
        raise torch.linalg.LinAlgError(
            f"components {i} and {j} have the same variance, {float(values[i]):.6g}, so single ones are not determined "
            "and have no gradient; use what depends on their subspace alone, such as components.T @ components, or "
            "take fewer components."
        )
    none = (near & unseen) | torch.eye(len(values), dtype=torch.bool, device=values.device)
    return torch.where(none, 0.0, skew / (2 * torch.where(none, 1.0, gaps)))


def _outside(
    rows: torch.Tensor, n: float, values: torch.Tensor, components: torch.Tensor, gradients: torch.Tensor
) -> torch.Tensor:
    """W (p, d), rows w_i with (l_i I - S) w_i = (I - V'V) g_i in the complement, by conjugate gradients.

    rows : (m, d), centred;  n : S is their products by this
    """

    def complement(part: torch.Tensor) -> torch.Tensor:
        part = part - (part @ components.T) @ components
        return part - (part @ components.T) @ components

    eps = torch.finfo(rows.dtype).eps
    residual = complement(gradients)
    size = torch.linalg.vector_norm(residual, dim=1)
    live = size > 100 * eps * torch.linalg.vector_norm(gradients, dim=1)
    solution = torch.zeros_like(residual)
    if not bool(live.any()):
        return solution
    residual = torch.where(live[:, None], residual, 0.0)
    # S where it is no larger than X
    s = rows.T @ rows / n if rows.shape[1] <= rows.shape[0] else None
    shifts = values[:, None]
    direction, square = residual.clone(), residual.square().sum(dim=1)
    goal = (4 * eps * size).square()
    for _ in range(_MOST_ITERATIONS):
        image = direction @ s if s is not None else (direction @ rows.T) @ rows / n
        image = complement(shifts * direction - image)
        curvature = (direction * image).sum(dim=1)
        if bool((live & (curvature <= 16 * eps * values * direction.square().sum(dim=1))).any()):
            break
        step = torch.where(live, square / torch.where(live, curvature, 1.0), 0.0)[:, None]
        solution = solution + step * direction
        residual = residual - step * image
        after = residual.square().sum(dim=1)
        live = live & (after > goal)
        if not bool(live.any()):
            return solution
        direction = residual + torch.where(live, after / square, 0.0)[:, None] * direction
        square = after
    raise torch.linalg.LinAlgError(
        f"component {len(values)} and the next have nearly the same variance, {float(values[-1]):.6g}: the subspace of "
        f"{len(values)} components is not determined and has no gradient; take more of them, or fewer."
    )
