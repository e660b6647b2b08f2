"""The gradient of gram anchoring as a pure, differentiable function of tensors.

L = sum_b w_b sum_ij d_ij², d = G_S - G_T, G_S = X Xᵀ of unit tokens. With W = d where G_S moves
(where it is not a dropped negative entry), both orders of a pair give dL/dX = 4 w W X, and through
x = s / |s|: dL/ds = (g - x <x, g>) / |s|, zero for a zero token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdops._precision import in_double
from kdops._recompute import row_blocks
from kdops._unit_rows import unit_and_inverse
from kdops.ops.token_gram.reference import difference, image_weights


@in_double
def gram_anchoring_gradient(
    student: Tensor, teacher: Tensor, weights: Tensor | None, negatives: int
) -> Tensor:
    """dL/dstudent (B, N, D_S)."""
    x, inverse = unit_and_inverse(student)
    y = unit_and_inverse(teacher.detach())[0]
    pulls = [x[:, :0]]
    for block in row_blocks(x.shape[1], x.shape[0] * x.shape[1]):
        d, moves = difference(x, y, block, negatives)
        pulls.append(torch.where(moves, d, 0.0) @ x)
    share = image_weights(student, weights)
    pull = torch.cat(pulls, 1) * 4
    pull = pull * (share[:, None, None] if isinstance(share, Tensor) else share)
    return (pull - x * (x * pull).sum(-1, keepdim=True)) * inverse
