"""The training loop on CUDA, its state and its kernels, under the names of backends/cpu/training."""
