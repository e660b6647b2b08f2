// log(a / b) on packs, which keeps its digits where a is nearly b.
//
// With b' = 2^n b, n such that a / b' is in [sqrt(1/2), sqrt(2)):
// log(a / b) = n ln2 + 2 artanh(s), s = (a - b') / (a + b'), a series in s^2 < 0.0295.
#pragma once

#include "common/simd/exp.h"

namespace kdops::similarity_kl::KDOPS_ISA {

// a, b > 0, a / b a normal number; difference is a - b, where the caller knows it better.
template <class T>
inline Pack<T> log_quotient(Pack<T> a, Pack<T> b, Pack<T> difference) {
  using P = Pack<T>;
  using Bits = typename PackTraits<T>::Bits;
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 11;
  const P root(static_cast<T>(0.70710678118654752440)), quotient = a / b;
  const Bits exponent = (reinterpret_cast<Bits>(quotient.r) - reinterpret_cast<Bits>(root.r)) >>
                        ExpTraits<T>::kMantissaBits;
  const P n(__builtin_convertvector(exponent, typename PackTraits<T>::Register));
  const P scaled = b * power_of_two(n);
  const P s = select(n == P(T(0)), difference, a - scaled) / (a + scaled);
  const P square = s * s;
  P series(T(0));
  for (int i = kTerms; i-- > 0;) series = fma(series, square, P(T(2) / static_cast<T>(2 * i + 1)));
  return fma(n, P(static_cast<T>(0.693147180559945309417)), s * series);
}

}  // namespace kdops::similarity_kl::KDOPS_ISA
