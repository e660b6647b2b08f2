"""ViT to ViT: Gram anchoring and KD-SVD on tokens, in an own training loop.

    python examples/vit_gram_anchoring.py

Gram anchoring compares which tokens of an image are alike: the student's N x N cosines follow the
teacher's, whatever the widths of both. It is fused: for 1,369 tokens (a picture of 518 x 518) no
N x N matrix is stored. KD-SVD relates the singular vectors of consecutive blocks.
"""

import torch
from vit_tokens import ViT

from kdops import FeatureTap
from kdops.distillers import KDSVD, GramAnchoring


def main(steps: int = 20) -> list[float]:
    torch.manual_seed(0)
    teacher, student = ViT(32, 4).eval(), ViT(16, 2)
    images = torch.randn(16, 3, 32, 32)
    tokens = {"layout": "tokens", "prefix": 1}  # without CLS
    with (
        FeatureTap(student, ["blocks.0", "blocks.1"], **tokens) as s,
        FeatureTap(teacher, ["blocks.1", "blocks.3"], **tokens) as t,
    ):
        with torch.no_grad():
            student(images[:2]), teacher(images[:2])
        anchoring = GramAnchoring("drop")
        svd = KDSVD.from_sample(s.features, t.features)  # a connector from 16 to 32 channels
        optimizer = torch.optim.AdamW([*student.parameters(), *svd.parameters()], 1e-3)
        losses = []
        for _ in range(steps):
            with torch.no_grad():
                teacher(images)
            student(images)
            loss = anchoring(s.features, t.features) + 0.1 * svd(s.features, t.features)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    print(f"anchoring and KD-SVD: {losses[0]:.4f} -> {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main()
