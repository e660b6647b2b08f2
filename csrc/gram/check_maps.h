// The check of a pair of maps, for the glue of the gram room on every device.
#pragma once

#include "common/check.h"

namespace kdops {

// x (B, C1, L) and y (B, C2, L) of one dtype and device.
inline void check_maps(const char* op, const Tensor& x, const Tensor& y) {
  check_dim(op, "x", x, 3);
  check_dim(op, "y", y, 3);
  check_like(op, "y", y, x);
  check_size(op, "y", y, 0, x.size(0));
  check_size(op, "y", y, 2, x.size(2));
}

}  // namespace kdops
