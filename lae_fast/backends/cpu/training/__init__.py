"""The compiled training loop of the CPU, its state and its kernels."""
