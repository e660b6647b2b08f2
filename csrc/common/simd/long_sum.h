// Sums of any length that are as exact as their terms. A sum taken number by number in float loses
// a digit for every factor of ten in its length (and stands still at 2^24 ones); here packs are
// added in blocks, the blocks in double, or with the rounding errors put back where there are too
// many sums for double. Callers: gram, attention, svd.
#pragma once

#include <algorithm>

#include "common/simd/pack_loop.h"
#include "common/simd/pack_math.h"
#include "common/simd/scratch.h"

namespace kdops::KDOPS_ISA {

// So many packs, or rows that are added up pack by pack, are summed without a break.
inline constexpr int64_t kSumBlock = 64;

// The same where blocks are added by a LongSum.
inline constexpr int64_t kLongBlock = 256;

// Adds blocks; what each addition rounds away goes into the next. V: a number or a register.
template <class V>
struct LongSum {
  V sum = V(Scalar<V>(0)), lost = V(Scalar<V>(0));

  void add(V x) {
    const V term = x - lost, next = sum + term;
    lost = (next - sum) - term;
    sum = next;
  }
};

// sums[i] += part[i], one LongSum each: its two halves lie in sums and lost.
template <class T>
inline void add_to_long_sums(const T* part, int64_t count, T* sums, T* lost) {
  for_packs<T>(count, [&](int64_t i, int lanes) {
    LongSum<Pack<T>> sum{load_some(sums + i, lanes), load_some(lost + i, lanes)};
    sum.add(load_some(part + i, lanes));
    store_some(sum.sum, sums + i, lanes);
    store_some(sum.lost, lost + i, lanes);
  });
}

// `entries` sums over 0..length of which slab(first, count, out) writes the part of a stretch. Up
// to kOneSlab it is asked once and writes the sums themselves; beyond, for `step` at a time.
inline constexpr int64_t kOneSlab = 4096;

template <class T, class Slab>
void sum_by_slabs(int64_t length, int64_t step, int64_t entries, T* sums, const Slab& slab) {
  if (length <= kOneSlab) return slab(int64_t(0), length, sums);
  Scratch<T> part(entries), lost(entries);
  std::fill_n(sums, entries, T(0));
  std::fill_n(lost.get(), entries, T(0));
  for (int64_t first = 0; first < length; first += step) {
    slab(first, std::min(length - first, step), part.get());
    add_to_long_sums(part.get(), entries, sums, lost.get());
  }
}

// Sum of term(j, lanes), a Pack whose lanes beyond `lanes` are zero, over the packs of 0..count.
template <class T, class Term>
inline double long_sum(int64_t count, const Term& term) {
  constexpr int64_t kStep = kSumBlock * Pack<T>::kLanes;
  double total = 0;
  for (int64_t first = 0; first < count; first += kStep) {
    Pack<T> sum(T(0));
    for_packs<T>(std::min(kStep, count - first),
                 [&](int64_t j, int lanes) { sum += term(first + j, lanes); });
    total += static_cast<double>(reduce_add(sum));
  }
  return total;
}

// The inner product of contiguous x and y.
template <class T>
inline double long_inner(const T* x, const T* y, int64_t count) {
  return long_sum<T>(count, [&](int64_t j, int lanes) {
    return load_some(x + j, lanes) * load_some(y + j, lanes);
  });
}

// Sum of (scale x)^2.
template <class T>
inline double long_squares(const T* x, int64_t count, T scale) {
  return long_sum<T>(count, [&](int64_t j, int lanes) {
    const Pack<T> part = Pack<T>(scale) * load_some(x + j, lanes);
    return part * part;
  });
}

}  // namespace kdops::KDOPS_ISA
