"""What the C++ kernels of this room need: csrc/rbf/limits.h, repeated (test_limits.py)."""

NUMBERS_PER_BACK_VALUE = 4  # in the CUDA kernel's shared memory
