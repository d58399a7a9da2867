"""The CUDA backend: Numba kernels between cuBLAS products, over arrays of CuPy, driven by the host.

target.py   the one import of Numba's CUDA target, and the probe that says whether it runs here
arrays.py   the one import of CuPy: arrays, pinned memory, streams;  under Numba's simulator NumPy stands in for it
launch.py   shapes of blocks and grids
blas.py     the one binding to cuBLAS
stream.py   chunks of the data, on their way to the device and kept there while they fit
tiles.py    kernels over tiles of the data matrix;  byte_gram.py: bytes;  passes/dense.py: the host side of both
sparse.py   kernels over stored entries, and their host side
panels.py   products of tall panels
loop.py  the training loop;  state.py: its memory;  coefficients.py, step.py, minibatch.py: its kernels
reduce.py   sums over the threads of a block;  graphs.py: an iteration as a CUDA graph

`passes`, `panels` and `sparse` have the functions of their namesakes in backends/cpu; what is different is said there.
"""
