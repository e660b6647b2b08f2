// Eigenvalues of symmetric tridiagonal matrices by implicit QR sweeps, one matrix per lane.
// Lanes, blocks and the sink are those of bidiagonal_qr.h; only sink.right is called.
#pragma once

#include "svd/full/cpu/bidiagonal_qr.h"

namespace kdops::svd::KDOPS_ISA {

// Wilkinson's shift: the eigenvalue of the trailing 2x2 that is closer to its last entry.
template <class V>
inline V tridiagonal_shift(const ActiveBlock<V>& block) {
  using T = Scalar<V>;
  const V half_gap = V(T(0.5)) * (block.before - block.last);
  const V e = block.coupling;
  const V denominator = half_gap + copysign(sqrt(fma(half_gap, half_gap, e * e)), half_gap);
  const auto safe = abs(denominator) > V(std::numeric_limits<T>::min());
  return block.last - e * select(safe, e / select(safe, denominator, V(T(1))), V(T(0)));
}

template <class V, class Sink>
void tridiagonal_sweep(const ActiveBlock<V>& block, V* d, V* e, Sink& sink) {
  using T = Scalar<V>;
  const V zero(T(0)), one(T(1));
  const V start = block.top - tridiagonal_shift(block);
  V f = zero, g = zero, here = d[block.first], beside = e[block.first], before = zero;
  V c = one, s = zero;  // of the rotation before
  for (int i = block.first; i < block.end; ++i) {
    const V index(static_cast<T>(i)), next = d[i + 1];
    const auto on = (block.low <= index) & (index < block.high);
    const auto starts = block.low == index;
    f = select(starts, start, f);
    g = select(starts, beside, g);
    const Rotation<V> rotation(f, g);
    if (i > block.first) {
      sink.right(i - 1, c, s);
      e[i - 1] = select(on & !starts, rotation.r(f), before);
    }
    c = select(on, rotation.c(), one);
    s = select(on, rotation.s(), zero);
    const V turn = add_product((c + c) * beside, s, next - here);
    const V move = s * turn;
    d[i] = here + move;
    here = next - move;
    f = fma(c, turn, -beside);  // outside a block: beside, exactly
    before = f;
    if (i + 1 < block.end) {
      const V far = e[i + 1];
      g = s * far;
      beside = c * far;
    }
  }
  sink.right(block.end - 1, c, s);
  d[block.end] = here;
  e[block.end - 1] = before;
}

// d (n) and e (n - 1) of a symmetric tridiagonal matrix -> its eigenvalues in d, unsorted.
template <class V, class Sink>
void tridiagonal_qr(V* d, V* e, int n, Sink& sink) {
  chase_all<V>(d, e, n, sink,
               [&](const ActiveBlock<V>& block) { tridiagonal_sweep(block, d, e, sink); });
}

}  // namespace kdops::svd::KDOPS_ISA
