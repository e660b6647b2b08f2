// Twin<V>: two registers that act as one number type of twice the lanes, with the vocabulary of
// pack.h and pack_math.h.
//
// A recurrence that runs one matrix per lane waits for the latency of its roots and divisions; with
// two registers the machine works on one while the other waits. In memory the lanes of a Twin
// follow one another: Twin arrays are Pack arrays of twice the length.
#pragma once

#include <type_traits>

#include "common/simd/pack_math.h"

namespace kdops::KDOPS_ISA {

template <class M>
struct TwinMask {
  M low, high;
  friend TwinMask operator&(TwinMask a, TwinMask b) { return {a.low & b.low, a.high & b.high}; }
  friend TwinMask operator|(TwinMask a, TwinMask b) { return {a.low | b.low, a.high | b.high}; }
  friend TwinMask operator!(TwinMask a) { return {!a.low, !a.high}; }
  friend bool any(TwinMask m) { return any(m.low | m.high); }
  friend bool all(TwinMask m) { return all(m.low & m.high); }
};

template <class V>
struct Twin {
  using Scalar = typename V::Scalar;
  using Mask = TwinMask<PackMask<Scalar>>;
  static constexpr int kLanes = 2 * V::kLanes;

  V low, high;

  Twin() = default;
  Twin(V first, V second) : low(first), high(second) {}
  Twin(Scalar value) : low(value), high(value) {}

  Scalar lane(int i) const { return i < V::kLanes ? low.lane(i) : high.lane(i - V::kLanes); }
  void set_lane(int i, Scalar value) {
    (i < V::kLanes ? low : high).set_lane(i % V::kLanes, value);
  }

  friend Twin operator+(Twin a, Twin b) { return {a.low + b.low, a.high + b.high}; }
  friend Twin operator-(Twin a, Twin b) { return {a.low - b.low, a.high - b.high}; }
  friend Twin operator*(Twin a, Twin b) { return {a.low * b.low, a.high * b.high}; }
  friend Twin operator/(Twin a, Twin b) { return {a.low / b.low, a.high / b.high}; }
  friend Twin operator-(Twin a) { return {-a.low, -a.high}; }
  friend Mask operator<(Twin a, Twin b) { return {a.low < b.low, a.high < b.high}; }
  friend Mask operator<=(Twin a, Twin b) { return {a.low <= b.low, a.high <= b.high}; }
  friend Mask operator>(Twin a, Twin b) { return {a.low > b.low, a.high > b.high}; }
  friend Mask operator>=(Twin a, Twin b) { return {a.low >= b.low, a.high >= b.high}; }
  friend Mask operator==(Twin a, Twin b) { return {a.low == b.low, a.high == b.high}; }

  friend Twin select(Mask m, Twin a, Twin b) {
    return {select(m.low, a.low, b.low), select(m.high, a.high, b.high)};
  }
  friend Twin fma(Twin a, Twin b, Twin c) {
    return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)};
  }
  friend Twin add_product(Twin c, Twin a, Twin b) {
    return {add_product(c.low, a.low, b.low), add_product(c.high, a.high, b.high)};
  }
  friend Twin subtract_product(Twin c, Twin a, Twin b) {
    return {subtract_product(c.low, a.low, b.low), subtract_product(c.high, a.high, b.high)};
  }
  friend Twin min(Twin a, Twin b) { return {min(a.low, b.low), min(a.high, b.high)}; }
  friend Twin max(Twin a, Twin b) { return {max(a.low, b.low), max(a.high, b.high)}; }
  friend Twin sqrt(Twin a) { return {sqrt(a.low), sqrt(a.high)}; }
  friend Twin abs(Twin a) { return {abs(a.low), abs(a.high)}; }
  friend Twin copysign(Twin a, Twin b) {
    return {copysign(a.low, b.low), copysign(a.high, b.high)};
  }
  friend Twin multiply_sign(Twin a, Twin b) {
    return {multiply_sign(a.low, b.low), multiply_sign(a.high, b.high)};
  }
};

template <class V>
struct NumberTraits<Twin<V>> {
  using Scalar = typename V::Scalar;
  using Mask = typename Twin<V>::Mask;
  static constexpr int kLanes = Twin<V>::kLanes;
};

template <class V>
inline ReciprocalRoot<Twin<V>> reciprocal_root(Twin<V> a) {
  const ReciprocalRoot<V> low = reciprocal_root(a.low), high = reciprocal_root(a.high);
  return {{low.estimate, high.estimate}, {low.correction, high.correction}};
}

// The number type of a recurrence over many matrices. A register of 64 bytes has lanes enough, and
// with 16 bytes it is the operations that are waited for.
template <class T>
using Wide = std::conditional_t<kPackBytes == 32, Twin<Pack<T>>, Pack<T>>;

}  // namespace kdops::KDOPS_ISA
