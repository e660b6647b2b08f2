// Scaling by a power of two of max|A|, so that squares neither overflow nor vanish, and the check
// for NaN and Inf that isolates a bad matrix from its neighbours.
#pragma once

#include "common/simd/pack_loop.h"
#include "common/simd/pack_math.h"

namespace kdops::svd::KDOPS_ISA {

template <class V>
struct Magnitude {
  V power;         // the power of two in (max|a| / 2, max|a|]
  Mask<V> finite;  // no NaN, no Inf
};

// Over `count` numbers or packs.
template <class V>
inline Magnitude<V> magnitude(const V* a, int64_t count) {
  const V zero(Scalar<V>(0));
  V largest[2] = {zero, zero}, poison[2] = {zero, zero};  // x * 0 is NaN for NaN and Inf
  int64_t i = 0;
  for (; i + 2 <= count; i += 2)
    for (int k = 0; k < 2; ++k) {
      largest[k] = max(abs(a[i + k]), largest[k]);
      poison[k] = fma(a[i + k], zero, poison[k]);
    }
  if (i < count) {
    largest[0] = max(abs(a[i]), largest[0]);
    poison[0] = fma(a[i], zero, poison[0]);
  }
  const auto finite = poison[0] + poison[1] == zero;
  return {floor_power_of_two(select(finite, max(largest[0], largest[1]), zero)), finite};
}

// The same for one contiguous matrix of T.
template <class T>
inline Magnitude<T> matrix_magnitude(const T* a, int64_t count) {
  using P = Pack<T>;
  P largest(T(0)), poison(T(0));
  for_packs<T>(count, [&](int64_t i, int lanes) {
    const P x = load_some(a + i, lanes);
    largest = max(abs(x), largest);
    poison = fma(x, P(T(0)), poison);
  });
  const bool finite = all(poison == P(T(0)));
  return {floor_power_of_two(finite ? reduce_max(largest) : T(0)), finite};
}

}  // namespace kdops::svd::KDOPS_ISA
