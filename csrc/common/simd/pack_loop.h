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

}  // namespace kdops::KDOPS_ISA
