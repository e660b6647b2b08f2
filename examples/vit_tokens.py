"""ViT to ViT: KD-SVD and relations on tokens, logits besides, in one call of fit.

    python examples/vit_tokens.py

The taps say once that blocks give tokens (B, N, D) and that the first one is CLS. The networks may
differ in width and in depth; where they differ in the number of tokens, methods that pool need
grid="square". A model of timm has the same layer names: blocks.0, blocks.1, ...
"""

import torch
from torch import Tensor, nn

from kdops import FeatureTap
from kdops.distillers import KDSVD, RKD, SoftTarget, WeightedSum
from kdops.training import fit


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A plain vision transformer: 16 patches of a 32 x 32 image and CLS."""

    def __init__(self, width: int, depth: int, classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Block(width, 2) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


def main(epochs: int = 3) -> list[dict[str, float]]:
    torch.manual_seed(0)
    teacher, student = ViT(32, 4), ViT(16, 2)
    images, target = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    data = torch.utils.data.TensorDataset(images, target)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    tokens = {"layout": "tokens", "prefix": 1}
    with (
        FeatureTap(student, ["blocks.0", "blocks.1"], **tokens) as s,
        FeatureTap(teacher, ["blocks.1", "blocks.3"], **tokens) as t,
    ):
        with torch.no_grad():
            student(images[:2]), teacher(images[:2])
        svd = KDSVD.from_sample(s.features, t.features)  # a connector from 16 to 32 channels
        terms = {"kd": SoftTarget(), "svd": svd, "rkd": RKD()}
        method = WeightedSum(terms, {"svd": 0.1, "rkd": 0.01})
        optimizer = torch.optim.AdamW([*student.parameters(), *method.parameters()], 1e-3)
        history = fit(student, teacher, method, loader, epochs=epochs, layers=(s, t),
                      optimizer=optimizer, progress=False)  # fmt: skip
    for row in history:
        print(f"epoch {row['epoch']}: task {row['loss']:.4f}, distillation {row['distill']:.4f}")
    return history


if __name__ == "__main__":
    main()
