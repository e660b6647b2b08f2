// From approximate small-side vectors V to singular triples: W = B V, then Rayleigh-Ritz on W's
// inner products, so that the long vectors are orthogonal to rounding although V came from a Gram
// matrix; then order, missing columns, and the long output in place of W.
#pragma once

#include "svd/full/gpu/lane_columns.cuh"
#include "svd/topk/gpu/context.cuh"

namespace kdops::svd::gpu {

// product (16 numbers) = row of the staged chunk times `columns` (p x kp, in shared memory), four
// columns and four entries at a time.
template <class T>
KDOPS_DEVICE void row_product(const TopkContext<T>& t, const T* row, const T* columns,
                              T (&product)[kLargestK]) {
  const int whole = t.p / 4 * 4;
#pragma unroll
  for (int c0 = 0; c0 < kLargestK; c0 += 4) {
    T sum[4] = {};
    if (c0 < t.kp) {
      const T* column = columns + c0;
      T factor[4];
#pragma unroll 2
      for (int j = 0; j < whole; j += 4) {
        T entry[4];
        load_numbers(row + j, entry);
#pragma unroll
        for (int q = 0; q < 4; ++q, column += t.kp) {
          load_numbers(column, factor);
#pragma unroll
          for (int c = 0; c < 4; ++c) sum[c] = fma(entry[q], factor[c], sum[c]);
        }
      }
#pragma unroll 1
      for (int j = whole; j < t.p; ++j, column += t.kp) {
        load_numbers(column, factor);
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[c] = fma(row[j], factor[c], sum[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) product[c0 + c] = sum[c];
  }
}

// X to `columns`, padded with zero columns. Ends with a barrier.
template <class T>
KDOPS_DEVICE void spread_columns(const TopkContext<T>& t, T* columns) {
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < t.p * t.kp; at += kTopkThreads) {
    const int i = at / t.kp, c = at % t.kp;
    columns[at] = c < t.k ? t.x[i * t.kx + c] : T(0);
  }
  __syncthreads();
}

// W = B V into w (data null: not kept), and |W_c|^2 into t.value.
template <class T>
KDOPS_DEVICE void long_product(const TopkContext<T>& t, const TopkPlan& plan, const Oriented<T>& B,
                               const LongSide<T>& w) {
  const int thread = static_cast<int>(threadIdx.x);
  T squares[kLargestK];
#pragma unroll
  for (int c = 0; c < kLargestK; ++c) squares[c] = T(0);
#pragma unroll 1
  for (int64_t row0 = 0; row0 < B.length; row0 += plan.rows) {
    B.stage(t.pool, plan, row0);
    if (thread < plan.rows && row0 + thread < B.length) {
      T product[kLargestK];
      row_product(t, t.pool + thread * plan.stride, t.columns, product);
#pragma unroll
      for (int c = 0; c < kLargestK; ++c) {
        squares[c] = fma(product[c], product[c], squares[c]);
        if (c < t.k && w.data != nullptr) w.at(row0 + thread, c) = product[c];
      }
    }
    __syncthreads();
  }
  const T sum = scatter_sum(squares);
  if (lane_id() % 2 == 0) t.line[warp_id() * kLargestK + lane_id() / 2] = sum;
  __syncthreads();
  if (thread < kLargestK) {
    T total = T(0);
    for (int q = 0; q < kTopkThreads / kWarp; ++q) total += t.line[q * kLargestK + thread];
    t.value[thread] = total;
  }
  __syncthreads();
}

// One warp: from the inner products C = W^T W (upper half in t.matrix) the rotation that makes W's
// columns orthogonal, to t.turn: Cholesky of the scaled C, then one-sided Jacobi on the factor, a
// column per lane. Columns below the floor are left alone.
template <class T>
KDOPS_DEVICE void ritz_rotation(const TopkContext<T>& t, const JacobiLimits<T>& limits) {
  const int lane = group_lane<kLargestK>();
  const T square = lane < t.k ? t.matrix[lane * kLargestK + lane] : T(0);
  const bool present = square > limits.floor_squared;
  const T norm = present ? sqrt(square) : T(0), inverse = present ? T(1) / norm : T(0);
  LaneColumns<T, kLargestK> own;
#pragma unroll
  for (int i = 0; i < kLargestK; ++i) {
    const T other = shuffle<kLargestK, kWarp>(inverse, i);
    T entry = T(0);
    if (i < lane && lane < t.k) entry = t.matrix[i * kLargestK + lane] * inverse * other;
    if (i == lane) entry = T(1);
#pragma unroll
    for (int l = 0; l < i; ++l)
      entry = fma(-shuffle<kLargestK, kWarp>(own.b[l], i), own.b[l], entry);
    const T pivot = sqrt(max(shuffle<kLargestK, kWarp>(entry, i), kEpsilon<T>));
    own.b[i] = lane >= i ? entry / pivot : T(0);
    own.v[i] = i == lane ? T(1) : T(0);
  }
#pragma unroll
  for (int i = 0; i < kLargestK; ++i) own.b[i] *= norm;
  bool done = false;
#pragma unroll 1
  for (int sweep = 0; sweep < kMaxSweeps && !warp_all(done); ++sweep)
    done = !small_sweep(own, done, true, limits) || done;
#pragma unroll
  for (int i = 0; i < kLargestK; ++i)
    if (lane_id() < kLargestK) t.turn[i * kLargestK + lane] = own.v[i];
}

// out(row) = in(row) * turn for k columns.
template <class T, class Row>
KDOPS_DEVICE void turn_row(const TopkContext<T>& t, const Row& entry) {
  T in[kLargestK];
#pragma unroll
  for (int a = 0; a < kLargestK; ++a) in[a] = a < t.k ? entry(a) : T(0);
#pragma unroll 1
  for (int c = 0; c < t.k; ++c) {
    T sum = T(0);
#pragma unroll
    for (int a = 0; a < kLargestK; ++a) sum = fma(in[a], t.turn[a * kLargestK + c], sum);
    entry(c) = sum;
  }
}

// Whether columns a and b of W are both above the floor, with a squared cosine above `most`.
template <class T>
KDOPS_DEVICE bool columns_meet(const TopkContext<T>& t, int a, int b, T floor_squared, T most) {
  const T aa = t.matrix[a * kLargestK + a], bb = t.matrix[b * kLargestK + b];
  const T ab = t.matrix[min(a, b) * kLargestK + max(a, b)];
  return min(aa, bb) > floor_squared && ab * ab > most * aa * bb;
}

// Rotates V (in t.x) and W until W's columns are orthogonal; leaves |W_c|^2 in t.value. One round
// is enough unless columns were almost parallel. Where all rows are rounded alike, as those of a
// matrix of equal entries, what is left of a column stays parallel to longer ones in every round: it
// is rounding, and counts as missing. (In the span of r columns it has a cosine of r^-1/2 with one.)
template <class T>
KDOPS_DEVICE void refine(const TopkContext<T>& t, const LongSide<T>& w, JacobiLimits<T> limits) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto entry = [&](int64_t row, int c) { return w.at(row, c); };
  // what one Gram product in working precision can tell apart
  limits.tolerance_squared = 64 * kEpsilon<T> * kEpsilon<T>;
#pragma unroll 1
  for (int round = 0;; ++round) {
    inner_products(t, w.length, entry, entry, true, t.matrix);
    bool large = false;
    for (int at = thread; at < t.k * t.k; at += kTopkThreads)
      large = large ||
              (at / t.k < at % t.k &&
               columns_meet(t, at / t.k, at % t.k, limits.floor_squared, limits.tolerance_squared));
    if (!block_any(large) || round == 3) break;
    if (warp_id() == 0) ritz_rotation(t, limits);
    __syncthreads();
    for (int i = thread; i < t.p; i += kTopkThreads)
      turn_row(t, [&](int c) -> T& { return t.x[i * t.kx + c]; });
    for (int64_t row = thread; row < w.length; row += kTopkThreads)
      turn_row(t, [&](int c) -> T& { return w.at(row, c); });
    __syncthreads();
  }
  if (thread < t.k) {
    constexpr T kParallel = T(1) / (4 * kLargestK);
    T square = t.matrix[thread * kLargestK + thread];
    for (int c = 0; c < t.k; ++c) {
      const T other = t.matrix[c * kLargestK + c];
      const bool longer = other > square || (other == square && c < thread);
      if (c != thread && longer && columns_meet(t, c, thread, limits.floor_squared, kParallel))
        square = T(0);
    }
    t.value[thread] = square;
  }
  __syncthreads();
}

// t.rank from t.value (squared norms), which becomes the norms in descending order.
template <class T>
KDOPS_DEVICE void rank_values(const TopkContext<T>& t) {
  const int thread = static_cast<int>(threadIdx.x);
  T mine = T(0);
  int rank = 0;
  if (thread < t.k) {
    mine = t.value[thread];
    t.rank[thread] = rank = rank_of(t.value, t.k, thread);
  }
  __syncthreads();
  if (thread < t.k) t.value[rank] = sqrt(mine);
  __syncthreads();
}

// Columns of X move to their ranks.
template <class T>
KDOPS_DEVICE void sort_small_side(const TopkContext<T>& t) {
  for (int i = static_cast<int>(threadIdx.x); i < t.p; i += kTopkThreads) {
    T in[kLargestK];
#pragma unroll
    for (int c = 0; c < kLargestK; ++c) in[c] = c < t.k ? t.x[i * t.kx + c] : T(0);
#pragma unroll
    for (int c = 0; c < kLargestK; ++c)
      if (c < t.k) t.x[i * t.kx + t.rank[c]] = in[c];
  }
  __syncthreads();
}

// W's columns at their ranks, of length one; zero where the norm is below the floor.
template <class T>
KDOPS_DEVICE void normalise_long(const TopkContext<T>& t, const LongSide<T>& w, T floor) {
  const int thread = static_cast<int>(threadIdx.x);
  T* factor = t.line;  // of a column before it moves
  if (thread < t.k) {
    const T norm = t.value[t.rank[thread]];
    factor[thread] = norm > floor ? T(1) / norm : T(0);
  }
  __syncthreads();
  for (int64_t row = thread; row < w.length; row += kTopkThreads) {
    T in[kLargestK];
#pragma unroll
    for (int c = 0; c < kLargestK; ++c) in[c] = c < t.k ? w.at(row, c) : T(0);
#pragma unroll
    for (int c = 0; c < kLargestK; ++c)
      if (c < t.k) w.at(row, t.rank[c]) = in[c] * factor[c];
  }
  __syncthreads();
}

// Missing long columns (the last ones, norm not above the floor) become unit vectors orthogonal to
// all before: of the first 32 axes the one farthest from them, made orthogonal twice.
template <class T>
KDOPS_DEVICE void complete_long(const TopkContext<T>& t, const LongSide<T>& w, T floor) {
  const int thread = static_cast<int>(threadIdx.x), warps = kTopkThreads / kWarp;
#pragma unroll 1
  for (int target = 0; target < t.k; ++target) {
    if (t.value[target] > floor) continue;
    T inside = lane_id() < w.length ? T(0) : T(2);
#pragma unroll 1
    for (int c = 0; c < target && lane_id() < w.length; ++c)
      inside = fma(w.at(lane_id(), c), w.at(lane_id(), c), inside);
    const int axis = warp_argmax(-inside, lane_id()).index;
    __syncthreads();
#pragma unroll 1
    for (int64_t row = thread; row < w.length; row += kTopkThreads)
      w.at(row, target) = row == axis ? T(1) : T(0);
    __syncthreads();
#pragma unroll 1
    for (int pass = 0; pass < 3; ++pass) {  // the last one only makes the length one
      const int begin = pass < 2 ? 0 : target, end = pass < 2 ? target : target + 1;
#pragma unroll 1
      for (int c = begin + warp_id(); c < end; c += warps) {
        T dot = T(0);
#pragma unroll 1
        for (int64_t row = lane_id(); row < w.length; row += kWarp)
          dot = fma(w.at(row, c), w.at(row, target), dot);
        dot = warp_sum(dot);
        if (lane_id() == 0) t.line[c] = dot;
      }
      __syncthreads();
#pragma unroll 1
      for (int64_t row = thread; row < w.length; row += kTopkThreads) {
        T entry = w.at(row, target);
#pragma unroll 1
        for (int c = 0; c < target && pass < 2; ++c) entry = fma(-t.line[c], w.at(row, c), entry);
        w.at(row, target) = pass < 2 ? entry : entry / sqrt(t.line[target]);
      }
      __syncthreads();
    }
  }
}

}  // namespace kdops::svd::gpu
