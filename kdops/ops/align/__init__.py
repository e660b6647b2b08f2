"""Singular vectors of a student in the order and with the signs of its teacher's."""

from __future__ import annotations

from torch import Tensor

from kdops import _check, _inputs
from kdops.ops.align import registration

__all__ = ["align_singular_vectors"]


def align_singular_vectors(student: Tensor, teacher: Tensor) -> Tensor:
    """For each teacher vector, the student vector closest in direction, with the teacher's sign.

    Column j is sign(c_ij) student_i with i the student vector of largest |c_ij|, c = studentᵀ
    teacher (of equals the first; two teacher vectors may get the same student vector).

    Args:
        student: (B, D, K') right singular vectors as columns, K' >= 1 candidates.
        teacher: (B, D, k).

    Both are read where they lie, as rows Vh.mT for instance; half types are computed in float32.

    Returns:
        (B, D, k) in the dtype of student. The gradient goes to the chosen student vectors; the
        choice, its sign and the teacher are constants. NaN touches its own sample only: there a
        vector whose product with the teacher's is NaN counts as the closest.

    Cost: 2 B D K' k FLOP.

    >>> V_S, V_T = torch.randn(8, 64, 4), torch.randn(8, 64, 1)
    >>> align_singular_vectors(V_S, V_T).shape
    torch.Size([8, 64, 1])
    """
    op = "align_singular_vectors"
    for name, value, columns in (("student", student, "K'"), ("teacher", teacher, "k")):
        _check.tensor(op, name, value)
        _check.rank(op, name, value, f"[B, D, {columns}]", 3)
    _check.same_kind(op, student=student, teacher=teacher)
    (batch, length, candidates), (teacher_batch, teacher_length, k) = student.shape, teacher.shape
    _check.same_size(op, "batch size", student=batch, teacher=teacher_batch)
    _check.same_size(op, "vector length D", student=length, teacher=teacher_length)
    if candidates == 0:
        raise ValueError(f"{op}: expected at least one student vector, got {list(student.shape)}")
    student, teacher = _inputs.outside_autocast(student, _inputs.constant(teacher))
    work, teacher = _inputs.widened(student), _inputs.widened(teacher)
    return _inputs.of_dtype(registration.align(work, teacher, length, candidates, k), student.dtype)
