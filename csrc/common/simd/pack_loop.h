// Loops over contiguous numbers, pack by pack; only the last pack may be partial. Whole packs go
// without a mask: a masked store is not forwarded to the load that follows it.
#pragma once

#include "common/simd/pack.h"

namespace kdops::KDOPS_ISA {

// Calls body(j, lanes) for j = 0, kLanes, ...
template <class T, class Body>
inline void for_packs(int64_t count, const Body& body) {
  constexpr int kLanes = Pack<T>::kLanes;
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) body(j, kLanes);
  if (j < count) body(j, static_cast<int>(count - j));
}

template <class T>
inline Pack<T> load_some(const T* p, int lanes) {
  return lanes == Pack<T>::kLanes ? Pack<T>::load(p) : Pack<T>::load_partial(p, lanes);
}
template <class T>
inline void store_some(Pack<T> value, T* p, int lanes) {
  if (lanes == Pack<T>::kLanes)
    value.store(p);
  else
    value.store_partial(p, lanes);
}

// The first `lanes` of a register; the others become zero.
template <class T>
inline Pack<T> first_lanes(Pack<T> value, int lanes) {
  if (lanes == Pack<T>::kLanes) return value;
  T numbers[Pack<T>::kLanes];
  value.store(numbers);
  return Pack<T>::load_partial(numbers, lanes);
}

// Sums of as many as a register adds up without losing digits; longer ones: long_sum.h.
template <class T>
inline T short_sum(const T* x, int64_t count) {
  Pack<T> sum(T(0));
  for_packs<T>(count, [&](int64_t j, int lanes) { sum += load_some(x + j, lanes); });
  return reduce_add(sum);
}
template <class T>
inline T short_inner(const T* x, const T* y, int64_t count) {
  Pack<T> sum(T(0));
  for_packs<T>(count, [&](int64_t j, int lanes) {
    sum = fma(load_some(x + j, lanes), load_some(y + j, lanes), sum);
  });
  return reduce_add(sum);
}

// max |x|; NaN is not seen.
template <class T>
inline T largest_size(const T* x, int64_t count) {
  Pack<T> largest(T(0));
  for_packs<T>(count,
               [&](int64_t j, int lanes) { largest = max(abs(load_some(x + j, lanes)), largest); });
  return reduce_max(largest);
}

}  // namespace kdops::KDOPS_ISA
