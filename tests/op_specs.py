"""One OpSpec per public op, from specs/<room>.py: each gets the whole contract of test_contract.py.

References are written out in plain PyTorch there or in the op's reference.py, never through the
kernels.
"""

from specs import attention, gram, polar, rbf, relation, svd

SPECS = (
    *attention.SPECS,
    *gram.SPECS,
    *polar.SPECS,
    *rbf.SPECS,
    *relation.SPECS,
    *svd.SPECS,
)
