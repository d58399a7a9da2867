"""The CPU backend: nogil Numba kernels around single-threaded BLAS, driven by Python threads (backends/threads.py).

passes/    gram.py, rows.py, sparse.py: what backends/interface.py asks for;  chunks.py: how they walk over the data
           tiles.py, totals.py, byte_gram.py, sparse_inner.py: their kernels
panels.py  products of tall matrices
training/  the training loop and its kernels
jit.py     the one decorator and the compile cache;  typed.py: what public kernels refuse
blas.py    the one binding to BLAS;  mkl.py: finds Intel's
products.py, few_columns.py  products of a tile of lines;  registers.py: blocks of sums in vector registers
contiguous.py  rows of slices of columns, typed as contiguous;  structs.py: tuples of arrays as one pointer
"""
