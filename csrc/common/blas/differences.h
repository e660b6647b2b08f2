// sum_j w_j (x - y_j), the gradient of everything that depends on distances. As x sum_j w_j - W y
// it is a matrix product, and cancels where the rows that weigh are much closer to each other than
// to the centre (clusters, or one row far away). Cancellation says so; such sums are taken from the
// differences of the rows as they were given. Callers: relation, rbf.
#pragma once

#include "common/shared/close_pair.h"
#include "common/simd/pack_loop.h"

namespace kdops::KDOPS_ISA {

// What the product form adds up, against what the sum is made of.
template <class T>
struct Cancellation {
  Pack<T> sizes{T(0)}, lengths{T(0)};

  // |w|, |x| + |y_j| and |x - y_j| of some pairs; lengths may be too short, never too long.
  void add(Pack<T> weight, Pack<T> size, Pack<T> length) {
    sizes = fma(weight, size, sizes);
    lengths = fma(weight, length, lengths);
  }
  // False for NaN, which differences would not cure. unit: of the lengths.
  bool lossy(T unit = T(1)) const {
    return reduce_add(sizes) > T(kLossyFactor) * unit * reduce_add(lengths);
  }
};

// out += sum_j w_j (x - y_j) scale for `count` rows y_j, `stride` apart. A pair without weight adds
// nothing, however far it is.
template <class T>
void add_differences(const T* w, int64_t count, const T* x, const T* y, int64_t stride,
                     int64_t width, T scale, T* out) {
  using P = Pack<T>;
  constexpr int kPacks = 4;
  const P unit(scale);
  int64_t c = 0;
  for (; c + kPacks * P::kLanes <= width; c += kPacks * P::kLanes) {
    P mine[kPacks], sum[kPacks];
    for (int p = 0; p < kPacks; ++p) {
      mine[p] = P::load(x + c + p * P::kLanes) * unit;
      sum[p] = P::load(out + c + p * P::kLanes);
    }
    for (int64_t j = 0; j < count; ++j) {
      if (w[j] == T(0)) continue;
      const P weight(w[j]);
      const T* other = y + j * stride + c;
#pragma GCC unroll 4
      for (int p = 0; p < kPacks; ++p)
        sum[p] = fma(weight, mine[p] - P::load(other + p * P::kLanes) * unit, sum[p]);
    }
    for (int p = 0; p < kPacks; ++p) sum[p].store(out + c + p * P::kLanes);
  }
  for_packs<T>(width - c, [&](int64_t k, int lanes) {
    const P mine = load_some(x + c + k, lanes) * unit;
    P sum = load_some(out + c + k, lanes);
    for (int64_t j = 0; j < count; ++j) {
      if (w[j] == T(0)) continue;
      const P difference = mine - load_some(y + j * stride + c + k, lanes) * unit;
      sum = fma(P(w[j]), difference, sum);
    }
    store_some(sum, out + c + k, lanes);
  });
}

}  // namespace kdops::KDOPS_ISA
