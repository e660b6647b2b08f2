"""Polar factors: aligning two embeddings (Procrustes) and orthogonal initialisation.

Run: python examples/polar.py. The first part trains a student's embedding to agree with a
teacher's up to an orthogonal map, which batched_polar finds and differentiates in every step. The
second one starts a stack of linear layers at the orthogonal matrices closest to random ones.
"""

import torch

import kdops


def align(student, teacher):
    """The orthogonal Q (b, d, d) that brings student Q closest to teacher, both (b, n, d)."""
    return kdops.batched_polar(student.mT @ teacher).U


def procrustes_loss(student, teacher):
    """What no rotation or reflection of the student's embedding removes."""
    student, teacher = (x - x.mean(-2, keepdim=True) for x in (student, teacher))
    student, teacher = (x / x.norm(dim=(-2, -1), keepdim=True) for x in (student, teacher))
    return (student @ align(student, teacher) - teacher).pow(2).sum((-2, -1)).mean()


def train_embedding(steps=60):
    """Losses of a linear student whose teacher is a hidden rotation of what it should learn."""
    inputs = torch.randn(4, 64, 24)
    hidden = torch.randn(4, 24, 8)
    rotation = kdops.batched_polar(torch.randn(4, 8, 8)).U
    teacher = inputs @ hidden @ rotation
    weight = torch.randn(4, 24, 8, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.1)
    losses = []
    for _ in range(steps):
        loss = procrustes_loss(inputs @ weight, teacher)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def orthogonal_(layers):
    """Every layer's weight becomes the orthogonal matrix closest to it: one call for all."""
    weights = torch.stack([layer.weight for layer in layers])
    for layer, weight in zip(layers, kdops.batched_polar(weights).U, strict=True):
        layer.weight.copy_(weight)


def signal_through(layers, x):
    """|output| / |input| of each sample."""
    y = x
    for layer in layers:
        y = layer(y)
    return y.norm(dim=-1) / x.norm(dim=-1)


def main():
    torch.manual_seed(0)
    losses = train_embedding()
    print(f"Procrustes loss: {losses[0]:.3f} at first, {losses[-1]:.4f} after {len(losses)} steps")
    layers = [torch.nn.Linear(32, 32, bias=False) for _ in range(50)]
    x = torch.randn(16, 32)
    before = signal_through(layers, x)
    orthogonal_(layers)
    after = signal_through(layers, x)
    print(f"signal through 50 layers: {before.mean():.1e} with torch's start, ", end="")
    print(f"{after.min():.6f} to {after.max():.6f} with orthogonal ones")
    return losses, before, after


if __name__ == "__main__":
    main()
