"""Tensors in, tensors out: scikit-learn's Array API dispatch, for a fit and for the batches of a DataLoader."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"  # scikit-learn asks for it, before SciPy is imported

import sklearn
import torch

import lae_fast as lf

generator = torch.Generator().manual_seed(0)
x = torch.randn(2000, 30, generator=generator) * torch.arange(30, 0, -1) + 100.0
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=128)

with sklearn.config_context(array_api_dispatch=True):
    whole = lf.PCA(5).fit(x)
    codes = whole.transform(x)
    stream = lf.IncrementalPCA(5)
    for (batch,) in loader:
        stream.partial_fit(batch)
print(f"codes: {type(codes).__name__} of {codes.dtype}; components: {type(whole.components_).__name__}")
far = (stream.explained_variance_ / whole.explained_variance_ - 1).abs().max().item()
print(f"variances of the stream and of the whole: {far:.1e} apart, {stream.n_samples_seen_} rows")
if not (isinstance(codes, torch.Tensor) and far < 1e-5):
    raise SystemExit("the stream was to be exact, and everything a tensor")
