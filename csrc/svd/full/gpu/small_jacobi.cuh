// One-sided Jacobi of N columns by N lanes. Lanes k and k + N / 2 share two columns: each holds the
// same half of the rows of both, so that an angle is made of two half sums, both columns turn in
// place, and only one of the two travels to the next meeting.
#pragma once

#include "svd/full/gpu/lane_columns.cuh"

namespace kdops::svd::gpu {

// Lanes without `bit` give their second column for the first of lane ^ bit. With N / 2 this turns
// whole columns into halves of two and back; below it gathers the columns that have not met.
template <int N, class T>
KDOPS_DEVICE void trade(T& first, T& second, int bit) {
  const bool upper = (group_lane<N>() & bit) != 0;
  const T got = shuffle_xor<N, kWarp>(upper ? first : second, bit);
  first = upper ? got : first;
  second = upper ? second : got;
}
template <class T, int N>
KDOPS_DEVICE void trade_halves(T (&c)[N], int bit) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) trade<N>(c[i], c[i + N / 2], bit);
}

template <class T, int N>
KDOPS_DEVICE void move_second(T (&c)[N], int bits) {
#pragma unroll
  for (int i = N / 2; i < N; ++i) c[i] = shuffle_xor<N, kWarp>(c[i], bits);
}

// A turn without its cosine, which the columns' factors take: one instruction a number, not two.
template <class T>
struct Shear {
  T into_first = T(0), into_second = T(0);
};
template <class T, int N>
KDOPS_DEVICE void turn_halves(T (&c)[N], const Shear<T>& shear) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const T first = c[i], second = c[i + N / 2];
    c[i] = fma(shear.into_first, second, first);
    c[i + N / 2] = fma(shear.into_second, first, second);
  }
}

// The inner product of two columns (halves of N / 2 rows at `a` and `b`), the same bits in both lanes.
template <class T, int N>
KDOPS_DEVICE T whole_product(const T (&c)[N], int a, int b) {
  constexpr int kSums = N >= 32 ? 4 : 2;
  T sum[kSums] = {};
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sum[i % kSums] = fma(c[a + i], c[b + i], sum[i % kSums]);
#pragma unroll
  for (int i = 2; i < kSums; ++i) sum[i % 2] += sum[i];
  const T half = sum[0] + sum[1];
  return half + shuffle_xor<N, kWarp>(half, N / 2);
}

// Columns go home after a sweep, so that every pair waits as long for its next meeting as all others
// do (a sweep less): lane k then holds columns 2 G(k) and 2 G(k) + 1, where G undoes the Gray code.
template <int N, class T>
KDOPS_DEVICE void go_home(T& first, T& second) {
  constexpr int kLanes = N / 2;
  const int lane = group_lane<N>(), column = lane % kLanes, code = column ^ column / 2;
  const int from = lane - column + code / 2, also_from = from ^ (kLanes / 2 | kLanes / 4);
  const T a[2] = {shuffle<N, kWarp>(first, from), shuffle<N, kWarp>(first, also_from)};
  const T b[2] = {shuffle<N, kWarp>(second, from), shuffle<N, kWarp>(second, also_from)};
  first = code % 2 == 0 ? a[0] : b[0];
  second = code % 2 == 0 ? a[1] : b[1];
}

// All meetings of one sweep.
template <class T, int N, bool kWithV>
struct PairedSweep {
  LaneColumns<T, N>& own;
  const JacobiLimits<T>& limits;
  const bool done;
  T aa, bb;              // squared norms, measured once a sweep
  T a = T(1), b = T(1);  // the columns are these times what the registers hold; >= 2^-16
  Shear<T> shear;        // the last turn, which V has still to follow
  bool again = false;

  KDOPS_DEVICE PairedSweep(LaneColumns<T, N>& columns, bool is_done, const JacobiLimits<T>& l)
      : own(columns), limits(l), done(is_done) {
    aa = whole_product(own.b, 0, 0);
    bb = whole_product(own.b, N / 2, N / 2);
  }

  // The next partners arrive (kTrade: those of the next level, from a lane `bits` away), and the pair
  // turns. V follows a step behind, while the angle is on its way.
  template <bool kTrade>
  KDOPS_DEVICE void meet(int bits) {
    if constexpr (kTrade) {
      trade_halves(own.b, bits);
      trade<N>(aa, bb, bits);
      trade<N>(a, b, bits);
    } else {
      move_second(own.b, bits);
      bb = shuffle_xor<N, kWarp>(bb, bits);
      b = shuffle_xor<N, kWarp>(b, bits);
    }
    const T ab = whole_product(own.b, 0, N / 2) * (a * b);
    if constexpr (kWithV) {
      turn_halves(own.v, shear);
      if constexpr (kTrade) {
        trade_halves(own.v, bits);
      } else {
        move_second(own.v, bits);
      }
    }
    turn(ab);
  }

  // As jacobi_rotation, but the tangent first: only it is waited for. & and |, not && and ||: a
  // branch would end what can overlap.
  KDOPS_DEVICE void turn(T ab) {
    const T product = aa * bb, square = ab * ab;
    const bool turns = (square > limits.tolerance_squared * product) &
                       (min(aa, bb) > limits.floor_squared) & !done;
    const T half = T(0.5) * (bb - aa), root_squared = fma(half, half, square);
    const T whole = fma(root_squared, rsqrt(root_squared), abs(half));
    const T tangent = (half < T(0) ? -ab : ab) * reciprocal(whole), t = turns ? tangent : T(0);
    shear = {-t * (b * reciprocal(a)), t * (a * reciprocal(b))};
    turn_halves(own.b, shear);
    again =
        again |
        (turns & ((square > limits.settled_squared * product) | (t * t > limits.settled_squared)));
    const T secant_squared = fma(t, t, T(1)), rough = rsqrt(secant_squared);
    const T cosine = rough * fma(T(-0.5), rough * rough * secant_squared, T(1.5));  // no drift
    a *= cosine, b *= cosine;
    aa = max(fma(-t, ab, aa), T(0)), bb = max(fma(t, ab, bb), T(0));
  }

  KDOPS_DEVICE bool finish() {
    if constexpr (kWithV) turn_halves(own.v, shear);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      own.b[i] *= a, own.b[i + N / 2] *= b;
      go_home<N>(own.b[i], own.b[i + N / 2]);
      if constexpr (!kWithV) continue;
      own.v[i] *= a, own.v[i + N / 2] *= b;
      go_home<N>(own.v[i], own.v[i + N / 2]);
    }
    return warp_any<N>(again);
  }
};

// All pairs of columns once. True in every lane if the matrix needs another sweep. Level by level,
// N / 2 lanes first: all first columns of a level meet all second ones, then each kind is a level of
// half the lanes.
template <class T, int N, bool kWithV>
KDOPS_DEVICE bool paired_sweep(LaneColumns<T, N>& own, bool done, const JacobiLimits<T>& limits) {
  PairedSweep<T, N, kWithV> sweep(own, done, limits);
#pragma unroll 1
  for (int lanes = N / 2; lanes > 0; lanes /= 2) {
#pragma unroll 1
    for (int step = lanes == N / 2 ? 0 : 1; step < lanes; ++step)
      sweep.template meet<false>(step ^ max(step - 1, 0));
    if (lanes > 1) sweep.template meet<true>(lanes / 2);
  }
  return sweep.finish();
}

}  // namespace kdops::svd::gpu
