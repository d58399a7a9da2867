"""Embeddings that can be cut: a linear head trained in nested widths, and retrieval recall at each width.

The full-prefix nested ("Matryoshka") objective of a linear layer, the sum of its errors at every width, is the ordered
loss.  So the head is trained at all widths at once for the cost of one, and its first k codes are the best k.  The data
look like sentence embeddings: topics in a space of falling variances, turned at random, with noise in all directions.
"""

import torch

from lae_fast import torch as lae_torch

torch.manual_seed(0)
d, p, topics, n = 96, 32, 150, 3000
turn = torch.linalg.qr(torch.randn(d, d))[0]
spread = torch.arange(1, d + 1) ** -0.7


def embeddings(labels):
    return (centres[labels] + 0.12 * torch.randn(len(labels), d)) @ turn


centres = torch.randn(topics, d) * spread
labels = torch.randint(topics, (n,))
documents, queries = embeddings(labels), embeddings(torch.arange(topics))

layer = lae_torch.LinearAutoencoderLayer(d, p, loss="ordered", center=True)
layer.set_mean(documents)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
for _ in range(400):
    optimizer.zero_grad()
    layer.loss(documents).backward()
    optimizer.step()
    schedule.step()
with torch.no_grad():  # the loss leaves the length of each code open
    scale = torch.linalg.vector_norm(layer.decoder, dim=0)
    layer.decoder /= scale
    layer.encoder *= scale[:, None]


def recall(found, asked, neighbours=10):
    """Share of the nearest documents of each query that are of its topic."""
    nearest = torch.cdist(asked, found).topk(neighbours, largest=False).indices
    return (labels[nearest] == torch.arange(topics)[:, None]).float().mean().item()


with torch.no_grad():
    full = recall(documents, queries)
    print(f"all {d} numbers: recall {full:.3f}")
    rows = []
    for width in (2, 4, 8, 16, 32):
        cut = recall(layer.encode(documents, width), layer.encode(queries, width))
        first = recall(documents[:, :width], queries[:, :width])
        rows.append(cut)
        print(f"first {width:2} codes: recall {cut:.3f}; first {width:2} numbers as they are: {first:.3f}")
if not (rows == sorted(rows) and rows[-1] > 0.95 * full):
    raise SystemExit("recall must grow with the width, and come close to that of the whole")
