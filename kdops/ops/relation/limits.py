"""What the C++ kernels of this room take: csrc/relation/limits.h, repeated (test_limits.py)."""

TOO_MANY_ROWS_ON_CUDA = 1 << 15  # of an RKD loss
