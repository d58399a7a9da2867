"""A stand-in that does on host memory what cuBLAS's reference says of column-major arrays behind pointers."""

import ctypes

import numpy as np

TYPES = {0: np.float32, 1: np.float64, 3: np.int8, 10: np.int32}
SCALARS = {68: np.float32, 77: np.float32, 78: np.float32, 70: np.float64, 72: np.int32}


class Cublas:
    """Column-major products on host memory; remembers modes and compute types."""

    CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
    CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE = 0, 1
    CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH, CUBLAS_GEMM_DEFAULT = 0, 3, -1

    def getVersion(self, handle):
        return 131_000

    def __init__(self):
        self.pointers, self.math = self.CUBLAS_POINTER_MODE_DEVICE, self.CUBLAS_TF32_TENSOR_OP_MATH  # left by others
        self.computed = []

    def getPointerMode(self, handle):
        return self.pointers

    def setPointerMode(self, handle, mode):
        self.pointers = mode

    def getMathMode(self, handle):
        return self.math

    def setMathMode(self, handle, mode):
        self.math = mode

    def matrix(self, pointer, dtype, rows, columns, leading):
        assert leading >= max(1, rows)  # CUBLAS_STATUS_INVALID_VALUE
        n_bytes = ((columns - 1) * leading + rows) * np.dtype(dtype).itemsize
        memory = np.frombuffer((ctypes.c_byte * n_bytes).from_address(pointer), dtype)
        return np.lib.stride_tricks.as_strided(memory, (rows, columns), (memory.itemsize, leading * memory.itemsize))

    def scalar(self, pointer, dtype):
        assert self.pointers == self.CUBLAS_POINTER_MODE_HOST and self.math == self.CUBLAS_DEFAULT_MATH
        return self.matrix(pointer, dtype, 1, 1, 1)[0, 0]

    def gemmStridedBatchedEx(
        self, handle, ta, tb, m, n, k, alpha, a, kind_a, lda, step_a, b, kind_b, ldb, step_b, beta, c, kind_c, ldc,
        step_c, batch, compute, algorithm,
    ):  # fmt: skip
        self.computed.append(compute)
        alpha, beta = (self.scalar(pointer, SCALARS[compute]) for pointer in (alpha, beta))
        kinds = [TYPES[kind] for kind in (kind_a, kind_b, kind_c)]
        for t in range(batch):
            left, right, out = (
                pointer + t * step * np.dtype(kind).itemsize
                for pointer, step, kind in zip((a, b, c), (step_a, step_b, step_c), kinds)
            )
            left = self.matrix(left, kinds[0], *((m, k) if ta == self.CUBLAS_OP_N else (k, m)), lda)
            right = self.matrix(right, kinds[1], *((k, n) if tb == self.CUBLAS_OP_N else (n, k)), ldb)
            left, right = (side.T if turned else side for side, turned in ((left, ta), (right, tb)))
            out = self.matrix(out, kinds[2], m, n, ldc)
            product = alpha * (left.astype(kinds[2]) @ right.astype(kinds[2]))
            out[...] = product if beta == 0 else product + beta * out

    def gemmEx(
        self, handle, ta, tb, m, n, k, alpha, a, kind_a, lda, b, kind_b, ldb, beta, c, kind_c, ldc, compute, algorithm
    ):
        self.gemmStridedBatchedEx(
            handle, ta, tb, m, n, k, alpha, a, kind_a, lda, 0, b, kind_b, ldb, 0, beta, c, kind_c, ldc, 0, 1, compute,
            algorithm,
        )  # fmt: skip
