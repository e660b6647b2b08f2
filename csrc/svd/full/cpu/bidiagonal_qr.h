// Singular values of upper bidiagonal matrices by implicit QR sweeps, one matrix per lane.
//
// Every sweep of a lane works on its own last unreduced block [low, high]; the loop runs over the
// union of the blocks and lanes outside theirs receive exact identities. So a lane's arithmetic
// does not depend on its neighbours, and no lane waits for another before its next sweep. Where two
// products are added it is said which one is rounded: one register and two must agree (Wide).
// The rotations go to a sink: sink.begin(low, high, first, last), then for first <= i < last
// sink.right(i, c, s) (columns i, i + 1 of V) and sink.left(i, c, s) (of U), then sink.end(). Each
// is handed over while the root of the next one is on its way: that is when the sink has time.
#pragma once

#include "common/simd/pack_math.h"

namespace kdops::svd::KDOPS_ISA {

// What a sweep may drop: couplings below 2 eps times the root of the two entries beside them, so
// that the small values of graded and nearly diagonal matrices, and their vectors, keep their own
// digits; and whatever is far below one eps of the largest entry, so that zeros come to rest.
// Smaller than 2 eps would not do: for repeated values the rounding errors of a sweep can reproduce
// a coupling of one eps for ever.
template <class V>
struct Negligible {
  using T = Scalar<V>;
  static constexpr T kCoupling = 2 * std::numeric_limits<T>::epsilon();
  V floor;

  explicit Negligible(V largest)
      : floor(V(kCoupling * std::numeric_limits<T>::epsilon()) * largest) {}
  Mask<V> coupling(V e, V above, V below) const {
    return e * e <= max(V(kCoupling * kCoupling) * abs(above * below), floor * floor);
  }
  Mask<V> diagonal(V d) const { return abs(d) <= floor; }
};

// The rotation with c f + s g = r, c g - s f = 0, c >= 0. Everything is kept before its division by
// the root: a product x c + y s is normal(x * size + y * toward), whose numerator does not wait for
// the root, the longest latency of a sweep.
template <class V>
struct Rotation {
  V size, toward, square;
  ReciprocalRoot<V> root;

  // The offset, far below one rounding error of the scaled matrix, makes this the identity where
  // f = g = 0 without a comparison.
  Rotation(V f, V g) {
    using T = Scalar<V>;
    size = max(abs(f), V(sizeof(T) == 4 ? T(1e-18) : T(1e-150)));
    toward = multiply_sign(g, f);
    square = add_product(g * g, size, size);
    root = reciprocal_root(square);
  }
  V normal(V numerator) const { return (numerator * root.estimate) * root.correction; }
  V c() const { return normal(size); }
  V s() const { return normal(toward); }
  V r(V f) const { return multiply_sign(normal(square), f); }
};

// The last unreduced block of every lane, as small integers in floating point.
template <class V>
struct ActiveBlock {
  V low, high;               // low > high: this lane has converged
  V last, before, coupling;  // d[high], d[high - 1], e[high - 1]
  V top;                     // d[low]
  Mask<V> singular;          // a diagonal entry of the block is negligible
  int first, end;            // union over the lanes: first <= low, high <= end
};

// Smallest and largest lane of a, as integers.
template <class V>
inline void lane_bounds(V low, V high, int& first, int& end) {
  using T = Scalar<V>;
  constexpr int kLanes = NumberTraits<V>::kLanes;
  alignas(64) T lows[kLanes], highs[kLanes];
  std::memcpy(lows, &low, sizeof(V));
  std::memcpy(highs, &high, sizeof(V));
  T smallest = lows[0], largest = highs[0];
  for (int l = 1; l < kLanes; ++l) {
    smallest = min(smallest, lows[l]);
    largest = max(largest, highs[l]);
  }
  first = static_cast<int>(smallest);
  end = static_cast<int>(largest);
}

// Sets negligible e to zero below `end` and finds the last block that is left.
template <class V>
ActiveBlock<V> find_block(const V* d, V* e, int end, const Negligible<V>& negligible) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1)), never(T(1 << 20));
  ActiveBlock<V> block{never, zero, zero, zero, zero, d[0], zero > zero, 0, 0};
  Mask<V> found = zero > zero, closed = found;
  for (int i = end - 1; i >= 0; --i) {
    const V index(static_cast<T>(i));
    const auto coupled = !negligible.coupling(e[i], d[i], d[i + 1]);
    e[i] = select(coupled, e[i], zero);
    const auto opens = coupled & !found;
    block.high = select(opens, index + one, block.high);
    block.low = select(opens, zero, block.low);
    block.last = select(opens, d[i + 1], block.last);
    block.before = select(opens, d[i], block.before);
    block.coupling = select(opens, e[i], block.coupling);
    block.singular = block.singular | (opens & negligible.diagonal(d[i + 1]));
    found = found | coupled;
    const auto closes = found & !coupled & !closed;
    block.low = select(closes, index + one, block.low);
    block.top = select(closes, d[i + 1], block.top);
    closed = closed | closes;
    block.singular = block.singular | (found & !closed & negligible.diagonal(d[i]));
    if (all(closed)) break;
  }
  lane_bounds(block.low, block.high, block.first, block.end);
  return block;
}

// The smaller singular value of [before, coupling; 0, last]; 0 for a singular block, and where the
// top entry is so small that the shift would be all that is left of it: an unshifted sweep brings
// the larger values up.
template <class V>
inline V bidiagonal_shift(const ActiveBlock<V>& block) {
  using T = Scalar<V>;
  const V f = abs(block.before), h = abs(block.last), g = block.coupling;
  const V sum = f + h, difference = f - h;
  const V largest = V(T(0.5)) * (sqrt(add_product(g * g, sum, sum)) +
                                 sqrt(add_product(g * g, difference, difference)));
  const auto safe = (largest > V(std::numeric_limits<T>::min())) & !block.singular &
                    (abs(block.top) > V(std::numeric_limits<T>::epsilon()) * largest);
  return select(safe, f * h / select(safe, largest, V(T(1))), V(T(0)));
}

// What one step passes to the next stays in registers: a root of a step waits for the root before
// it, and for nothing that went through memory or through another division.
template <class V, class Sink>
void bidiagonal_sweep(const ActiveBlock<V>& block, V* d, V* e, Sink& sink) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1));
  const V shift = bidiagonal_shift(block);
  const auto shifted = shift > zero;
  const V start =
      block.top - select(shifted, shift * (shift / select(shifted, block.top, one)), zero);
  V f = zero, g = zero, here = d[block.first], beside = e[block.first], before = zero;
  V c = one, s = zero;  // of the left rotation before
  for (int i = block.first; i < block.end; ++i) {
    const V index(static_cast<T>(i)), next = d[i + 1];
    const auto on = (block.low <= index) & (index < block.high);
    const auto starts = block.low == index;
    f = select(starts, start, f);
    g = select(starts, beside, g);
    const Rotation<V> right(f, g);
    if (i > block.first) {
      sink.left(i - 1, c, s);
      e[i - 1] = select(on & !starts, right.r(f), before);
    }
    c = select(on, right.c(), one);
    s = select(on, right.s(), zero);
    // In lanes outside their block f and g are never used: these need no select.
    f = right.normal(add_product(right.toward * beside, right.size, here));
    g = right.normal(right.toward * next);
    const V above = subtract_product(c * beside, s, here), below = c * next;
    const Rotation<V> left(f, g);
    sink.right(i, c, s);
    c = select(on, left.c(), one);
    s = select(on, left.s(), zero);
    d[i] = select(on, left.r(f), here);
    f = left.normal(add_product(left.toward * below, left.size, above));
    here = subtract_product(c * below, s, above);
    const V next_index(static_cast<T>(i + 1));
    before = select(on & (next_index == block.high), f, above);
    if (i + 1 < block.end) {
      const V far = e[i + 1];
      g = left.normal(left.toward * far);
      beside = c * far;
    }
  }
  sink.left(block.end - 1, c, s);
  d[block.end] = here;
  e[block.end - 1] = before;
}

// sweep(block) on the lowest active block of d (n) and e (n - 1) until none is left in any lane.
template <class V, class Sink, class Sweep>
void chase_all(V* d, V* e, int n, Sink& sink, const Sweep& sweep) {
  V largest = abs(d[0]);
  for (int i = 1; i < n; ++i) largest = max(max(abs(d[i]), abs(e[i - 1])), largest);
  const Negligible<V> negligible(largest);
  const int sweeps = 30 + 10 * n;  // 2 n is usual; the bound only guards against a surprise
  for (int count = 0, end = n - 1; count < sweeps; ++count) {
    const ActiveBlock<V> block = find_block(d, e, end, negligible);
    if (block.end == 0) break;
    sink.begin(block.low, block.high, block.first, block.end);
    sweep(block);
    sink.end();
    end = block.end;
  }
}

// d (n) and e (n - 1) of a bidiagonal matrix -> its signed singular values in d, unsorted.
template <class V, class Sink>
void bidiagonal_qr(V* d, V* e, int n, Sink& sink) {
  chase_all<V>(d, e, n, sink,
               [&](const ActiveBlock<V>& block) { bidiagonal_sweep(block, d, e, sink); });
}

}  // namespace kdops::svd::KDOPS_ISA
