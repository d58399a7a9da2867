"""PCA inside a network: features are learned so that two principal components carry as much of them as possible."""

import torch

from lae_fast import torch as lae_torch

torch.manual_seed(0)
x = torch.randn(400, 12)
network = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8))
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
shares = []
for _ in range(150):
    features = network(x)
    found = lae_torch.pca(features, 2)
    share = found.values.sum() / features.var(dim=0).sum()
    shares.append(share.item())
    optimizer.zero_grad()
    (-share).backward()
    optimizer.step()
print(f"variance explained by two components: {shares[0]:.2f} before, {shares[-1]:.2f} after")
if shares[-1] < 0.9:
    raise SystemExit("the features were to become nearly two-dimensional")
