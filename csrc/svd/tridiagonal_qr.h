// Eigenvalues of symmetric tridiagonal matrices by implicit QR sweeps, one matrix per lane.
// Lanes, blocks and the sink are those of bidiagonal_qr.h; only sink.right is called.
#pragma once

#include "svd/bidiagonal_qr.h"

namespace kdops::KDOPS_ISA {

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
  const V shift = tridiagonal_shift(block);
  V f = zero, g = zero;
  for (int i = block.first; i < block.end; ++i) {
    const V index(static_cast<T>(i));
    const auto on = (block.low <= index) & (index < block.high);
    const auto starts = block.low == index;
    f = select(starts, d[i] - shift, f);
    g = select(starts, e[i], g);
    const Rotation<V> rotation(f, g);
    const V c = select(on, rotation.c(), one), s = select(on, rotation.s(), zero);
    sink.right(i, c, s);
    if (i > block.first) e[i - 1] = select(on & !starts, rotation.r(f), e[i - 1]);
    const V turn = fma(s, d[i + 1] - d[i], (c + c) * e[i]);
    const V move = s * turn;
    d[i] = d[i] + move;
    d[i + 1] = d[i + 1] - move;
    f = select(on, fma(c, turn, -e[i]), e[i]);
    e[i] = f;
    if (i + 1 < block.end) {
      g = s * e[i + 1];
      e[i + 1] = c * e[i + 1];
    }
  }
}

// d (n) and e (n - 1) of a symmetric tridiagonal matrix -> its eigenvalues in d, unsorted.
template <class V, class Sink>
void tridiagonal_qr(V* d, V* e, int n, Sink& sink) {
  chase_all<V>(d, e, n, sink,
               [&](const ActiveBlock<V>& block) { tridiagonal_sweep(block, d, e, sink); });
}

}  // namespace kdops::KDOPS_ISA
