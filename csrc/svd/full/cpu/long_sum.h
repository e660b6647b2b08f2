// Sums along a side of any length: blocks of a few hundred terms, and the sum of the blocks with
// its rounding errors put back, so that the error does not grow with the length (a plain sum of
// ones stands still at 2^24 in single precision).
#pragma once

#include "common/simd/pack_math.h"

namespace kdops::svd::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

inline constexpr int64_t kSumBlock = 256;

// V: a number or a register.
template <class V>
struct LongSum {
  V sum = V(Scalar<V>(0)), lost = V(Scalar<V>(0));

  void add(V x) {
    const V term = x - lost, next = sum + term;
    lost = (next - sum) - term;
    sum = next;
  }
};

}  // namespace kdops::svd::KDOPS_ISA
