"""The CPU backend: nogil Numba kernels around single-threaded BLAS, driven by Python threads.

jit.py      the one decorator and the compile cache
blas.py     the one binding to BLAS
threads.py  thread count, BLAS guard, ordered parallel loops
tiles.py    kernels over tiles of the data matrix
"""
