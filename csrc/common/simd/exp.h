// exp and expm1 on packs, to about one unit in the last place, for float and double.
//
// x = n ln2 + r with |r| <= ln2 / 2; e^r - 1 = r + r^2 p(r) with p a Chebyshev fit of degree 5
// (float) or 11 (double), whose own error is below 0.02 ulp; then the scaling by 2^n. NaN stays
// NaN, overflow gives Inf, underflow is gradual. Callers: the kernels of rbf.
#pragma once

#include <iterator>

#include "common/simd/pack.h"

namespace kdops::KDOPS_ISA {

template <class T>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kLow = -105.0f, kHigh = 89.0f;  // exp is 0 below, Inf above
  static constexpr float kMinusOne = -26.0f;             // expm1 is -1 below
  static constexpr int kMantissaBits = 23;
  static constexpr int32_t kOne = 0x3f800000;  // the bits of 1.0
  static constexpr float kPolynomial[] = {0x1.a125f6p-13f, 0x1.6d444ap-10f, 0x1.1110e0p-7f,
                                          0x1.5554e8p-5f,  0x1.555556p-3f,  0.5f};
};

template <>
struct ExpTraits<double> {
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93147180369123816490e-01;
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kLow = -746.0, kHigh = 710.0;
  static constexpr double kMinusOne = -40.0;
  static constexpr int kMantissaBits = 52;
  static constexpr int64_t kOne = 0x3ff0000000000000;
  static constexpr double kPolynomial[] = {
      0x1.61c041733a645p-33, 0x1.1f7fb55a7a4f0p-29, 0x1.ae642c30edf0dp-26, 0x1.27e4d3cc8ca96p-22,
      0x1.71de3a5ab713dp-19, 0x1.a01a01aa06591p-16, 0x1.a01a01a019687p-13, 0x1.6c16c16c15a23p-10,
      0x1.1111111111111p-7,  0x1.5555555555557p-5,  0x1.5555555555555p-3,  0.5};
};

// 2^n for a whole n in the normal range.
template <class T>
inline Pack<T> power_of_two(Pack<T> n) {
  using Bits = typename PackTraits<T>::Bits;
  using E = ExpTraits<T>;
  const Bits shifted = reinterpret_cast<Bits>((n + Pack<T>(E::kRound)).r) << E::kMantissaBits;
  return Pack<T>(reinterpret_cast<typename Pack<T>::Register>(shifted + E::kOne));
}

// value * 2^n, gradual where the result is subnormal.
template <class T>
inline Pack<T> scale_by_power(Pack<T> value, Pack<T> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return Pack<T>(_mm512_scalef_ps(value.r, n.r));
  else
    return Pack<T>(_mm512_scalef_pd(value.r, n.r));
#else
  const Pack<T> round(ExpTraits<T>::kRound);
  const Pack<T> half = (fma(n, Pack<T>(T(0.5)), round)) - round;
  return value * power_of_two(half) * power_of_two(n - half);
#endif
}

// x = n ln2 + r; returns e^r - 1. x must be in [kLow, kHigh] or NaN.
template <class T>
inline Pack<T> reduced_expm1(Pack<T> x, Pack<T>& n) {
  using P = Pack<T>;
  using E = ExpTraits<T>;
  n = fma(x, P(T(1.44269504088896340736)), P(E::kRound)) - P(E::kRound);
  const P r = fma(n, P(-E::kLn2Low), fma(n, P(-E::kLn2High), x));
  P poly(E::kPolynomial[0]);
  for (size_t i = 1; i < std::size(E::kPolynomial); ++i) poly = fma(poly, r, P(E::kPolynomial[i]));
  return fma(r * r, poly, r);
}

// x limited to [low, high]; the order of the operands lets NaN through.
template <class T>
inline Pack<T> clamp(Pack<T> x, T low, T high) {
  return max(Pack<T>(low), min(Pack<T>(high), x));
}

template <class T>
inline Pack<T> exp(Pack<T> x) {
  using E = ExpTraits<T>;
  Pack<T> n;
  const Pack<T> q = reduced_expm1(clamp(x, E::kLow, E::kHigh), n);
  return scale_by_power(q + Pack<T>(T(1)), n);
}

template <class T>
inline Pack<T> expm1(Pack<T> x) {
  using P = Pack<T>;
  using E = ExpTraits<T>;
  P n;
  const P q = reduced_expm1(clamp(x, E::kMinusOne, E::kHigh), n);
  const P half = power_of_two(n - P(T(1)));  // half of 2^n, which itself may overflow
  const P value = fma(half, q, half - P(T(0.5)));
  return value + value;
}

// The polynomial of reduced_expm1 for powers of two: 2^r - 1 = r ln2 + r^2 p(r).
template <class T>
struct Exp2Polynomial {
  static constexpr size_t kTerms = std::size(ExpTraits<T>::kPolynomial);
  static constexpr double kLn2 = 0.693147180559945309417;
  T terms[kTerms];

  constexpr Exp2Polynomial() : terms() {
    double power = kLn2;
    for (size_t i = kTerms; i-- > 0;) {
      power *= kLn2;
      terms[i] = static_cast<T>(ExpTraits<T>::kPolynomial[i] * power);
    }
  }
};

// x = n + r; returns 2^r - 1. Two operations less than reduced_expm1, for whoever can have the
// factor log2(e) in x already. x must be above kLow / ln2, at most 0, or NaN.
template <class T>
inline Pack<T> reduced_exp2m1(Pack<T> x, Pack<T>& n) {
  using P = Pack<T>;
  static constexpr Exp2Polynomial<T> kPolynomial;
  n = (x + P(ExpTraits<T>::kRound)) - P(ExpTraits<T>::kRound);
  const P r = x - n;
  P poly(kPolynomial.terms[0]);
  for (size_t i = 1; i < kPolynomial.kTerms; ++i) poly = fma(poly, r, P(kPolynomial.terms[i]));
  return r * fma(r, poly, P(static_cast<T>(kPolynomial.kLn2)));
}

template <class T>
inline constexpr T kLowestPower = ExpTraits<T>::kLow / T(0.69);  // 2^x is 0 below

// 2^x for x <= 0.
template <class T>
inline Pack<T> exp2_of_negative(Pack<T> x) {
  Pack<T> n;
  const Pack<T> q = reduced_exp2m1(max(Pack<T>(kLowestPower<T>), x), n);
  return scale_by_power(q + Pack<T>(T(1)), n);
}

// For x <= 0: 2^x in e and 2^x - 1 returned, sharing the work.
template <class T>
inline Pack<T> exp2m1_and_exp2(Pack<T> x, Pack<T>& e) {
  using P = Pack<T>;
  P n;
  const P q = reduced_exp2m1(max(P(kLowestPower<T>), x), n);
  const P power = scale_by_power(P(T(1)), n);
  e = fma(power, q, power);
  return fma(power, q, power - P(T(1)));
}

}  // namespace kdops::KDOPS_ISA
