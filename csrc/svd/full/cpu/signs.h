// Order, canonical signs and the final layout of singular vectors.
#pragma once

#include <algorithm>

#include "common/simd/pack_loop.h"
#include "common/simd/transpose.h"
#include "svd/shared/sign.h"

namespace kdops::svd::KDOPS_ISA {

// +1 or -1, by the rule of shared/sign.h.
template <class T>
T canonical_sign(const T* v, int64_t count) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  T largest = v[0], smallest = v[0];
  int64_t i = 0;
  if (count >= kLanes) {
    P high = P::load(v), low = high;
    for (i = kLanes; i + kLanes <= count; i += kLanes) {
      const P x = P::load(v + i);
      high = max(x, high);
      low = min(x, low);
    }
    largest = reduce_max(high);
    smallest = -reduce_max(-low);
  }
  for (; i < count; ++i) {
    largest = max(v[i], largest);
    smallest = min(v[i], smallest);
  }
  const T sign = sign_of_extremes(largest, smallest), almost = deciding_size(largest, smallest);
  if (sign != T(0)) return sign;
  for (i = 0; i < count; ++i)
    if (abs(v[i]) >= almost) return v[i] < T(0) ? T(-1) : T(1);
  return T(1);
}

// order[0..n): indices of keys, largest first; equal keys keep their order.
template <class T>
void sort_descending(const T* keys, int n, int* order) {
  for (int i = 0; i < n; ++i) {
    int at = i;
    for (; at > 0 && keys[order[at - 1]] < keys[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
}

// out row j = factor[j] * vectors row order[j], `length` numbers; no negative zeros.
template <class T>
void write_rows(const T* vectors, int stride, const int* order, const T* factor, int count,
                int length, T* out, int64_t out_stride) {
  using P = Pack<T>;
  for (int j = 0; j < count; ++j) {
    const T* row = vectors + order[j] * stride;
    T* target = out + j * out_stride;
    const P scale(factor[j]);
    for_packs<T>(length, [&](int64_t i, int lanes) {
      store_some(fma(scale, load_some(row + i, lanes), P(T(0))), target + i, lanes);
    });
  }
}

// out (length x count) column j = factor[j] * vectors row order[j].
template <class T>
void write_columns(const T* vectors, int stride, const int* order, const T* factor, int count,
                   int length, T* out, int64_t out_stride) {
  using P = Pack<T>;
  constexpr int kLanes = P::kLanes;
  for (int j = 0; j < count; j += kLanes) {
    const int columns = std::min(kLanes, count - j);
    for (int i = 0; i < length; i += kLanes) {
      const int rows = std::min(kLanes, length - i);
      P block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        block[r] = P(T(0));
        if (r >= columns) continue;
        const T* source = vectors + order[j + r] * stride + i;
        block[r] = fma(P(factor[j + r]), load_some(source, rows), P(T(0)));
      }
      transpose(block);
      for (int r = 0; r < rows; ++r) store_some(block[r], out + (i + r) * out_stride + j, columns);
    }
  }
}

}  // namespace kdops::svd::KDOPS_ISA
