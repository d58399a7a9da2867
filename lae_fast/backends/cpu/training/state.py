"""What the training loop of iteration.py works on: its mini-batches, what it changes and its workspace.

Weights are stored one component per row: encoder B (p, d) and A' (p, q).  For Y = X both are halves of one (2p, d)
array, so that one GEMM makes both products with S.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...formulas import ALPHA, GIVEN, GRADIENT, MOMENTS, MU, N_ROW_SUMS, N_SUMS, N_TRACES, TIED, UNTIED
from ...training_interface import Data, Spec
from ..registers import BLOCK_ROWS
from . import packed_gemm

# Columns of a block: wide enough for BLAS, narrow enough for the second-level cache.
_BLOCK = 192
_LARGEST_COUNT = 32
# A block is whole panels of a packed S, see packed_gemm.py.
_UNIT = 32


class Member(NamedTuple):
    """One thread of the team that runs a loop together."""

    rank: int  # 0 to size - 1
    size: int
    shared: np.ndarray  # `barrier.shared_state()`, one for the team


class Rows(NamedTuple):
    """Where mini-batches are gathered from; see `minibatch.gather`.  All empty for moments."""

    x: np.ndarray
    x_strides: tuple[int, int]
    x_shift: np.ndarray
    y: np.ndarray
    y_strides: tuple[int, int]
    y_shift: np.ndarray
    scale: float
    weights: np.ndarray  # (m,) float64, or empty
    places: np.ndarray  # (n_iterations, b) int64: the rows of each batch
    kept: np.ndarray  # (n_iterations, b) int64 for dropout, else (0, 0)
    factor: np.ndarray  # (n_iterations,) float64: what the batch's sums are multiplied with


class State(NamedTuple):
    """What training changes: weights, optimizer states, the VAE's own parameters."""

    stack: np.ndarray  # (2p, d) for Y = X; else the encoder again
    encoder: np.ndarray  # (p, d)
    decoder: np.ndarray  # (p, q), A'
    encoder_first: np.ndarray
    encoder_second: np.ndarray
    decoder_first: np.ndarray
    decoder_second: np.ndarray
    extra: np.ndarray  # (3, p + 1) float64: e_1..e_p and log s^2, and their two states


class Work(NamedTuple):
    """Workspace, allocated once by `workspace`; nothing is allocated in the loop."""

    product: np.ndarray  # (2p, d) or (p, d): the stack of Z_B and Z_A; where S is packed a few rows of zeros more
    packed_s: np.ndarray  # sxx and the stack of the weights as packed_gemm.py multiplies them, or (0, 0, 0)
    packed_stack: np.ndarray
    encoder_product: np.ndarray  # (p, d), Z_B = B Sxx
    decoder_product: np.ndarray  # (p, d), Z_A = A'Syx
    target_product: np.ndarray  # (p, q), B Sxy; for Y = X the same memory as Z_B
    gram_decoder: np.ndarray  # (p, p) each, lower triangles: A'A, BB', G
    gram_encoder: np.ndarray
    gram_latent: np.ndarray
    p1: np.ndarray  # (p, p) each: dense coefficients of encoder and decoder
    p3: np.ndarray
    q3: np.ndarray
    on_encoder: np.ndarray  # (p,) diagonal coefficients
    on_decoder: np.ndarray
    on_weights: np.ndarray  # (p,) G_ii for rules that normalise rows, else zeros, and (p,) zeros
    no_weights: np.ndarray
    scratch: np.ndarray  # (threads, p, widest block)
    x_blocks: np.ndarray  # column bounds of X's side, of Y's side, row bounds of p, of the batch
    y_blocks: np.ndarray
    p_blocks: np.ndarray
    b_blocks: np.ndarray
    x_sums: np.ndarray  # (blocks, N_SUMS) float64
    y_sums: np.ndarray
    x_row_sums: np.ndarray  # (blocks, p, N_ROW_SUMS) float64, of the encoder's step and of the decoder's
    y_row_sums: np.ndarray
    p_sums: np.ndarray  # (blocks, N_TRACES) float64
    b_sums: np.ndarray  # (blocks,) float64: |Y|^2 of the batch
    row_squares: np.ndarray  # (blocks, p) float64, or (blocks, 0)
    x_rows: np.ndarray  # (b, d), (b, q), codes (b, 2p): the batch
    y_rows: np.ndarray
    codes: np.ndarray
    turned_encoder: np.ndarray  # (d, 2p) the stack, or (d, p), and (q, p): weights by columns, for batches
    turned_decoder: np.ndarray
    extra_gradient: np.ndarray  # (p + 1,) float64
    no_squares: np.ndarray  # (0,) float64


def compiled_for(spec: Spec) -> tuple[str, ...]:
    """The fields of `spec` for whose values the loop is compiled; the others it reads when it runs.

    What most people train, a loss by its gradient, has a loop of its own, which compiles in half the time; another for
    mini-batches.  All other kinds share one loop, because a loop for each would take longer for whoever tries a few.
    """
    plain = spec.rule == GRADIENT and spec.coupling == UNTIED and spec.same and spec.has_decoder
    if plain and not spec.sequential and spec.product_penalty == 0.0 and spec.product != GIVEN:
        return "rule", "coupling", "sequential", "same", "has_decoder", "product", "product_penalty"
    return ()


def blocks(size: int, width: int = _BLOCK) -> np.ndarray:
    """Bounds of blocks of about `width`, multiples of 32, a power of two of them; from the size alone."""
    count = 1
    while count < _LARGEST_COUNT and 2 * count * width <= size * 4 // 3:
        count *= 2
    units = -(-size // _UNIT)
    return np.minimum(size, _UNIT * (np.arange(count + 1) * units // count)).astype(np.int64)


def new_state(encoder: np.ndarray, decoder: np.ndarray, same: bool) -> State:
    """State with copies of the weights (p, d) and (p, q) and optimizer states of zero; no decoder is (0, q)."""
    p = encoder.shape[0]
    if same and decoder.shape[0]:
        stack = np.concatenate([encoder, decoder])
        encoder, decoder = stack[:p], stack[p:]
    else:
        encoder, decoder = encoder.copy(), decoder.copy()
        stack = encoder
    return State(
        stack=stack, encoder=encoder, decoder=decoder,
        encoder_first=np.zeros_like(encoder), encoder_second=np.zeros_like(encoder),
        decoder_first=np.zeros_like(decoder), decoder_second=np.zeros_like(decoder), extra=np.zeros((3, p + 1)),
    )  # fmt: skip


def no_rows(dtype: np.dtype) -> Rows:
    """The mini-batches of a loop without any; of the same types, so that the loop compiles once."""
    nothing, none = np.zeros(0, dtype), np.zeros((0, 0), np.int64)
    nothing.flags.writeable = False
    shift = np.zeros(0, dtype)
    return Rows(nothing, (0, 1), shift, nothing, (0, 1), shift, 1.0, np.zeros(0), none, none, np.zeros(0))


def packed_moments(spec: Spec, sxx: np.ndarray, n_stack: int) -> np.ndarray:
    """S in the order of `packed_gemm.multiply`, or (0, 0, 0) where BLAS multiplies.

    It is packed where one product of an iteration takes all weights, `n_stack` rows, and BLAS is slower.
    """
    whole = spec.product == MOMENTS and spec.same and not spec.sequential and spec.coupling != TIED
    if whole and packed_gemm.pays(n_stack):
        return packed_gemm.pack_columns(sxx)
    return np.zeros((0, 0, 0), sxx.dtype)


def workspace(state: State, spec: Spec, data: Data, packed_s: np.ndarray, n_team: int, batch: int) -> Work:
    """All workspace of the loop for `n_team` threads and batches of `batch` rows."""
    p, d = state.encoder.shape
    q = state.decoder.shape[1]
    dtype = state.encoder.dtype
    n_stack = state.stack.shape[0]
    packed_stack = packed_gemm.new_packed_rows(n_stack if packed_s.size else 0, d, dtype)
    product = np.zeros((max(n_stack, packed_stack.shape[0] * BLOCK_ROWS), d), dtype)
    zb, za = product[:p], (product[p : 2 * p] if spec.same and spec.has_decoder else np.zeros((p, d), dtype))
    x_blocks, y_blocks, p_blocks, b_blocks = blocks(d), blocks(q), blocks(p, 64), blocks(batch, 64)
    widest = int(max(np.diff(x_blocks).max(), np.diff(y_blocks).max()))
    normalises = spec.rule in (ALPHA, MU)
    # P2 of the encoder and P1 of the decoder, Eq. 22 and 24; P1 = -I of the rules without a decoder, Eq. 25 to 28
    on_decoder = (-2.0 * data.prefix).astype(dtype)
    return Work(
        product=product, packed_s=packed_s, packed_stack=packed_stack, encoder_product=zb, decoder_product=za,
        target_product=zb if spec.same else np.zeros((p, q), dtype),
        gram_decoder=np.zeros((p, p), dtype), gram_encoder=np.zeros((p, p), dtype),
        gram_latent=np.zeros((p, p), dtype),
        p1=np.zeros((p, p), dtype), p3=np.zeros((p, p), dtype), q3=np.zeros((p, p), dtype),
        on_encoder=on_decoder.copy() if spec.has_decoder else np.full(p, -1.0, dtype), on_decoder=on_decoder,
        on_weights=np.zeros(p, dtype), no_weights=np.zeros(p, dtype), scratch=np.zeros((n_team, p, widest), dtype),
        x_blocks=x_blocks, y_blocks=y_blocks, p_blocks=p_blocks, b_blocks=b_blocks,
        x_sums=np.zeros((len(x_blocks) - 1, N_SUMS)), y_sums=np.zeros((len(y_blocks) - 1, N_SUMS)),
        x_row_sums=np.zeros((len(x_blocks) - 1, p, N_ROW_SUMS)),
        y_row_sums=np.zeros((len(y_blocks) - 1, p, N_ROW_SUMS)),
        p_sums=np.zeros((len(p_blocks) - 1, N_TRACES)), b_sums=np.zeros(len(b_blocks) - 1),
        row_squares=np.zeros((len(x_blocks) - 1, p if normalises else 0)),
        x_rows=np.zeros((batch, d), dtype), y_rows=np.zeros((0 if spec.same else batch, q), dtype),
        codes=np.zeros((batch, 2 * p if spec.has_decoder else p), dtype),
        turned_encoder=np.zeros((d if batch else 0, n_stack if spec.same else p), dtype),
        turned_decoder=np.zeros((q if batch and not spec.same else 0, p), dtype),
        extra_gradient=np.zeros(p + 1), no_squares=np.zeros(0),
    )  # fmt: skip
