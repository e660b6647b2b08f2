// Householder tridiagonalisation of a Gram matrix of up to 128 rows, in one block, with one barrier a
// step, and its reflectors applied to vectors. Only the part of the spectrum that is asked for is
// ever computed: O(p^2 k) after the 4/3 p^3 of the reduction.
#pragma once

#include "svd/shared/reflector.h"
#include "svd/topk/gpu/context.cuh"

namespace kdops::svd::gpu {

// What warps tell each other in a step: their parts of y = G x and of x^T y, and the next column.
template <int kRows, int kWarps, class T>
struct ReductionBoard {
  static constexpr int kSide = kRows * kWarp;
  static constexpr int kNumbers = (kWarps + 1) * kSide + kWarps;
  T *parts, *column, *squares;
  KDOPS_DEVICE explicit ReductionBoard(T* at)
      : parts(at), column(at + kWarps * kSide), squares(column + kSide) {}
  KDOPS_DEVICE T image(int i) const {
    T sum = parts[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += parts[w * kSide + i];
    return sum;
  }
  KDOPS_DEVICE T square() const {
    T sum = squares[0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) sum += squares[w];
    return sum;
  }
};

// The matrix in registers: lane l of warp w holds rows l + 32 r of columns w + kWarps c, and every
// one of these warps column k, the step's, in x. With x' the column below its first entry and
// v = e + scale x' the reflector, e the first axis,
//   G v = G e + scale y,   v^T G v = G_ee + 2 scale y_e + scale^2 x'^T y,   y = G x',
// so that the products wait for x only, not for the reflector, and the next x comes from the same
// numbers, before the other columns are updated.
template <int kRows, int kWarps, class T>
struct Reduction {
  static constexpr int kColumns = kRows * kWarp / kWarps;
  T a[kColumns][kRows], x[kRows], tail[kRows];
  Reflector<T> h;

  static KDOPS_DEVICE int row(int r) { return lane_id() + r * kWarp; }
  // Entry warp + kWarps c of a vector that lies over the lanes.
  static KDOPS_DEVICE T entry(const T (&vector)[kRows], int c) {
    return shuffle(vector[c * kWarps / kWarp], warp_id() + c * kWarps % kWarp);
  }

  KDOPS_DEVICE void load(const T* g, int ld, int p) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int j = warp_id() + c * kWarps;
        a[c][r] = row(r) < p && j < p ? g[j * ld + row(r)] : T(0);
      }
      x[r] = row(r) < p ? g[row(r)] : T(0);
    }
  }

  KDOPS_DEVICE void announce(int k, const ReductionBoard<kRows, kWarps, T>& board) {
    const int next = k + 1;
    if (next % kWarps == warp_id()) {
      T column[kRows];
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          column[r] = c == 0 || warp_id() + c * kWarps == next ? a[c][r] : column[r];
#pragma unroll
      for (int r = 0; r < kRows; ++r) board.column[row(r)] = column[r];
    }
    T alpha = x[0], rest = T(0), y[2][kRows] = {}, square = T(0);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      alpha = row(r) == next ? x[r] : alpha;
      tail[r] = row(r) > next ? x[r] : T(0);
      rest = fma(tail[r], tail[r], rest);
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const T factor = entry(tail, c);
#pragma unroll
      for (int r = 0; r < kRows; ++r) y[c % 2][r] = fma(a[c][r], factor, y[c % 2][r]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      y[0][r] += y[1][r];
      square = fma(tail[r], y[0][r], square);
    }
    rest = warp_sum(rest), square = warp_sum(square);
#pragma unroll
    for (int r = 0; r < kRows; ++r) board.parts[warp_id() * board.kSide + row(r)] = y[0][r];
    if (lane_id() == 0) board.squares[warp_id()] = square;
    h = make_reflector(shuffle(alpha, next % kWarp), rest);
  }

  // v stays in tail; rows up to k are left alone.
  KDOPS_DEVICE void update(int k, const ReductionBoard<kRows, kWarps, T>& board) {
    const T first = board.image(k + 1), corner = board.column[k + 1], half = T(0.5) * h.tau;
    const T quadratic = fma(h.scale, fma(h.scale, board.square(), 2 * first), corner);
    const T shift = half * h.tau * quadratic,
            next = fma(h.tau, fma(h.scale, first, corner), -shift);
    T w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const T column = board.column[row(r)], image = fma(h.scale, board.image(row(r)), column);
      tail[r] = row(r) == k + 1 ? T(1) : tail[r] * h.scale;
      w[r] = row(r) > k ? fma(h.tau, image, -shift * tail[r]) : T(0);
      x[r] = fma(-tail[r], next, column) - w[r];
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const T vj = entry(tail, c), wj = entry(w, c);
#pragma unroll
      for (int r = 0; r < kRows; ++r) a[c][r] = fma(-tail[r], wj, fma(-w[r], vj, a[c][r]));
    }
  }
};

// d, e, tau of a tridiagonal form.
template <class T>
struct Band {
  T *d, *e, *tau;
};

// Numbers of the shared memory that tridiagonalise() needs.
inline constexpr int kReductionScratch = 4 * kLargestK * kLargestK + kTopkThreads;

template <int kRows, int kWarps, class T>
KDOPS_DEVICE void tridiagonalise_in_registers(T* g, int p, int ld, const Band<T>& t, T* scratch) {
  using Board = ReductionBoard<kRows, kWarps, T>;
  constexpr bool kTwoBoards = 2 * Board::kNumbers <= kReductionScratch;
  static_assert(Board::kNumbers <= kReductionScratch);
  const bool active = warp_id() < kWarps, first = warp_id() == 0;
  Reduction<kRows, kWarps, T> own;
  if (active) own.load(g, ld, p);
  __syncthreads();
#pragma unroll 1
  for (int k = 0; k + 2 < p; ++k) {
    const Board board(scratch + (kTwoBoards && k % 2 == 1 ? Board::kNumbers : 0));
    if (active) own.announce(k, board);
    if (first) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (own.row(r) == k) t.d[k] = own.x[r];
      if (lane_id() == 0) t.e[k] = own.h.beta, t.tau[k] = own.h.tau;
    }
    __syncthreads();
    if (active) own.update(k, board);
    if (first) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (own.row(r) < p) g[k * ld + own.row(r)] = own.tail[r];
    }
    if (!kTwoBoards) __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first && own.row(r) == p - 2) t.d[p - 2] = own.x[r];
    if (first && own.row(r) == p - 1 && p > 1) t.e[p - 2] = own.x[r], t.e[p - 1] = T(0);
#pragma unroll
    for (int c = 0; c < own.kColumns; ++c)
      if (active && own.row(r) == p - 1 && warp_id() + c * kWarps == p - 1)
        t.d[p - 1] = own.a[c][r];
  }
  __syncthreads();
}

// G (p <= 128 rows, ld apart) = Q T Q^T: d, e of T; reflector k is row k of what was G, zeros up to
// k, then a one, and its factor is in tau. scratch: shared memory.
template <class T>
KDOPS_DEVICE void tridiagonalise(T* g, int p, int ld, const Band<T>& band, T* scratch) {
  if (p <= 2 * kWarp)
    tridiagonalise_in_registers<2, 4>(g, p, ld, band, scratch);
  else
    tridiagonalise_in_registers<4, 8>(g, p, ld, band, scratch);
}

// As tridiagonalise() leaves them: p numbers each in rows ld apart.
template <class T>
struct Reflectors {
  const T *rows, *tau;
  int p, ld;
};

// Four reflectors, the first of them applied first, as one: H_3 H_2 H_1 H_0 x = x - sum of c_s v_s,
// where c_s = tau_s (v_s^T x - sum over q < s of c_q v_q^T v_s). A warp's.
template <class T>
struct FourReflectors {
  static constexpr int kRows = kLargestSmallSide / kWarp;
  T v[4][kRows], tau[4];

  // Of all p - 2; steps past them are the identity.
  KDOPS_DEVICE FourReflectors(const Reflectors<T>& of, int begin, bool transposed) {
    const int p = of.p, last = p - 3;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const int step = min(begin + s, last), k = transposed ? step : last - step;
      tau[s] = begin + s <= last ? of.tau[k] : T(0);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int i = lane_id() + r * kWarp;
        const T entry = of.rows[k * of.ld + min(i, p - 1)];  // a load without a condition
        v[s][r] = i > k && i < p ? entry : T(0);
      }
    }
  }

  KDOPS_DEVICE void apply(T (&x)[kRows]) const {
    T sum[16] = {};  // v_s^T x; v_1 of v_0; v_2 of v_0, v_1; v_3 of v_0, v_1, v_2
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        sum[s] = fma(v[s][r], x[r], sum[s]);
#pragma unroll
        for (int q = 0; q < s; ++q)
          sum[4 + s * (s - 1) / 2 + q] = fma(v[q][r], v[s][r], sum[4 + s * (s - 1) / 2 + q]);
      }
    }
    const T mine = scatter_sum(sum);  // lane l: of sum l / 2
    T c[4];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      c[s] = shuffle(mine, 2 * s);
#pragma unroll
      for (int q = 0; q < s; ++q)
        c[s] = fma(-c[q], shuffle(mine, 2 * (4 + s * (s - 1) / 2 + q)), c[s]);
      c[s] *= tau[s];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int s = 0; s < 4; ++s) x[r] = fma(-c[s], v[s][r], x[r]);
  }
};

// Vector c of `count`, at(i, c), becomes Q x (or Q^T x): a warp per vector. Ends with a barrier.
template <class T, class Entry>
KDOPS_DEVICE void apply_reflectors(const Reflectors<T>& reflectors, int count, const Entry& at,
                                   bool transposed) {
  constexpr int kRows = FourReflectors<T>::kRows;
  const int p = reflectors.p;
#pragma unroll 1
  for (int c = warp_id(); c < count; c += kTopkThreads / kWarp) {
    T entry[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = lane_id() + r * kWarp;
      entry[r] = i < p ? at(i, c) : T(0);
    }
#pragma unroll 1
    for (int begin = 0; begin < p - 2; begin += 4)
      FourReflectors<T>(reflectors, begin, transposed).apply(entry);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = lane_id() + r * kWarp;
      if (i < p) at(i, c) = entry[r];
    }
  }
  __syncthreads();
}

// The same for the columns of X.
template <class T>
KDOPS_DEVICE void apply_reflectors(const TopkContext<T>& t, const T* g, int ld, bool transposed) {
  apply_reflectors(
      Reflectors<T>{g, t.tau, t.p, ld}, t.k, [&](int i, int c) -> T& { return t.x[i * t.kx + c]; },
      transposed);
}

}  // namespace kdops::svd::gpu
