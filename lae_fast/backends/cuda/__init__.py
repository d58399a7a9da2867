"""The CUDA backend: Numba kernels between cuBLAS products, over arrays of CuPy, driven by the host.

passes/    gram.py, rows.py, sparse.py: what backends/interface.py asks for;  chunks.py: how they walk over the data
           tiles.py, totals.py, byte_gram.py: their kernels
panels.py  products of tall matrices
training/  the training loop and its kernels
target.py  the one import of Numba's CUDA target, and the probe that says whether it runs here
arrays.py  the one import of CuPy: arrays, pinned memory, streams;  under Numba's simulator NumPy stands in for it
blas.py    the one binding to cuBLAS
stream.py  chunks of the data, on their way to the device and kept there while they fit
packed.py  arguments of a kernel as the driver takes them
launch.py  shapes of blocks and grids;  reduce.py: sums over the threads of a block
"""
