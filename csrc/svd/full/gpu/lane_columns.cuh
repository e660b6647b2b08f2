// A column of a small matrix per lane, in registers, and one-sided Jacobi on such columns: partners
// are lane ^ 1, lane ^ 2, ... lane ^ (N - 1), their columns arrive by shuffle. The groups of a warp
// stay together in all that is done with such columns.
#pragma once

#include "svd/full/gpu/device.cuh"

namespace kdops::svd::gpu {

template <class T, int N>
struct LaneColumns {
  T b[N];  // column of B, then of B V
  T v[N];  // column of V
};

template <class T, int N>
KDOPS_DEVICE T squared_norm(const T (&column)[N]) {
  T sum[2] = {T(0), T(0)};
#pragma unroll
  for (int i = 0; i < N; ++i) sum[i % 2] = fma(column[i], column[i], sum[i % 2]);
  return sum[0] + sum[1];
}

// All pairs of columns once. True in every lane if the matrix needs another sweep.
template <class T, int N>
KDOPS_DEVICE bool small_sweep(LaneColumns<T, N>& own, bool done, bool with_v,
                              const JacobiLimits<T>& limits) {
  const int lane = group_lane<N>();
  T norm = squared_norm(own.b);
  bool again = false;
#pragma unroll 1
  for (int bits = 1; bits < N; ++bits) {
    T other[N], dot[2] = {T(0), T(0)};
#pragma unroll
    for (int i = 0; i < N; ++i) {
      other[i] = shuffle_xor<N, kWarp>(own.b[i], bits);
      dot[i % 2] = fma(own.b[i], other[i], dot[i % 2]);
    }
    const T other_norm = shuffle_xor<N, kWarp>(norm, bits);
    const bool first = lane < (lane ^ bits);
    Rotation<T> turn = jacobi_rotation(first ? norm : other_norm, first ? other_norm : norm,
                                       dot[0] + dot[1], limits);
    turn.turns = turn.turns && !done;
    again = again || turn.again;
    if (!warp_any(turn.turns)) continue;  // the whole warp, so that its groups stay together
    const T x = turn.turns ? turn.x : T(1);
    const T y = turn.turns ? (first ? turn.y : -turn.y) : T(0);
    if (turn.turns) norm = first ? turn.aa : turn.bb;
#pragma unroll
    for (int i = 0; i < N; ++i) own.b[i] = fma(x, own.b[i], y * other[i]);
    if (!with_v) continue;
#pragma unroll
    for (int i = 0; i < N; ++i)
      own.v[i] = fma(x, own.v[i], y * shuffle_xor<N, kWarp>(own.v[i], bits));
  }
  return warp_any<N>(again);
}

}  // namespace kdops::svd::gpu
