// The fused Gram loss: per item
//   D = scale_s x1 x2T - scale_t y1 y2T,
//   loss = coefficient * (sum of D^2, or of D's column norms).
// D is one product whose depth runs over the student's positions and then over the teacher's, by
// the tiles of gram_tile.cuh. Its depth may be split; a part then holds positions of one side, and
// all parts are added in order. Sums of both sides are kept apart until the last subtraction, so
// that equal maps give D = 0 exactly. Loss: a double per block, added up by gram_total_kernel.
//   squares, not split:  gram_difference_kernel, gram_total_kernel
//   squares, split:      gram_difference_kernel, gram_squares_kernel, gram_total_kernel
//   columns:             gram_difference_kernel, gram_columns_kernel, gram_total_kernel
// Parts are (splits, B, rows, cols); D, or its pull for columns, replaces the first part.
// Planned by gram_plan.cuh, launched by loss_cuda.cu.
#pragma once

#include "gram/gram_tile.cuh"

namespace kdops::gram::gpu {

inline constexpr int kGramLossThreads = 256;

template <class T>
struct GramDifference {
  GramProblem<T> product;  // a = x1, b = x2; out and partial: the parts, or null if not wanted
  GramOperand<T> y1, y2;
  int student_depth, teacher_depth;
  int turn;            // depth of the teacher's first stage: the student's whole stages
  int student_splits;  // the first parts, if there are several
  T scale_s, scale_t;
  double* losses;  // a block's sum of squares, or null
};

// The stages of a block: all, or those of its part.
template <class T>
KDOPS_DEVICE void gram_take_side(const GramDifference<T>& q, GramPlace& place) {
  const GramProblem<T>& p = q.product;
  if (p.splits == 1) return;
  const bool teacher = place.split >= q.student_splits;
  if (teacher) place.begin = q.turn + (place.split - q.student_splits) * p.split_depth;
  place.end = min(teacher ? p.depth : q.turn, place.begin + p.split_depth);
}

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) gram_difference_kernel(GramDifference<T> q) {
  constexpr int kReg = Tile::kReg;
  KDOPS_SHARED(T, stages, [2][Tile::kDepth * Tile::kPitch]);
  const GramProblem<T>& p = q.product;
  GramPlace place = gram_place<Tile>(p);
  gram_take_side(q, place);
  T acc[kReg][kReg] = {}, student[kReg][kReg] = {};
  const auto for_registers = [&](const auto& body) {
#pragma unroll
    for (int r = 0; r < kReg * kReg; ++r)
      body(acc[r / kReg][r % kReg], student[r / kReg][r % kReg]);
  };
  const auto source = [&](int k) {
    const bool teacher = k >= q.turn;
    return GramSource<T>{gram_item(teacher ? q.y1 : p.a, place),
                         gram_item(teacher ? q.y2 : p.b, place), teacher ? k - q.turn : k,
                         teacher ? q.teacher_depth : q.student_depth};
  };
  const auto reached = [&](int k) {
    if (k != q.turn) return;
    for_registers([&](T& sum, T& kept) { kept = rounded_product(q.scale_s, sum), sum = T(0); });
  };
  gram_accumulate<Tile>(p, place, source, reached, stages, acc);
  if (place.end > q.turn)
    for_registers([&](T& sum, T& kept) { sum = kept - rounded_product(q.scale_t, sum); });
  else
    for_registers([&](T& sum, T&) { sum = rounded_product(q.scale_s, sum); });
  gram_join_groups<Tile>(&stages[0][0], acc);
  if (p.out != nullptr) gram_write<Tile>(p, place, acc);
  if (q.losses == nullptr) return;
  double squares = 0;  // of D, which may be larger than the root of T's range
  gram_for_entries<Tile>(p, place, acc, [&](int row, int col, T value) {
    const double d = value;
    squares += p.symmetric && row != col ? 2 * d * d : d * d;
  });
  const double sum = block_sum<Tile::kThreads>(squares);
  if (threadIdx.x == 0) q.losses[blockIdx.x] = sum;
}

// An entry of D from its parts, `count` apart.
template <class T>
KDOPS_DEVICE T gram_whole(const T* part, int64_t count, int student_splits, int splits) {
  T student(0), teacher(0);
  for (int s = 0; s < student_splits; ++s) student += part[s * count];
  for (int s = student_splits; s < splits; ++s) teacher += part[s * count];
  return student + teacher;
}

// 256 entries of D a block.
template <class T>
__global__ void __launch_bounds__(kGramLossThreads)
    gram_squares_kernel(T* parts, int64_t count, int student_splits, int splits, bool keep,
                        double* __restrict__ losses) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kGramLossThreads + threadIdx.x;
  T d(0);
  if (i < count) {
    d = gram_whole(parts + i, count, student_splits, splits);
    if (keep) parts[i] = d;
  }
  const double sum = block_sum<kGramLossThreads>(static_cast<double>(d) * d);
  if (threadIdx.x == 0) losses[blockIdx.x] = sum;
}

template <class T>
struct GramColumns {
  T* parts;
  int rows, cols, col_blocks;  // a block: one item, 32 columns; its warps share the rows
  int64_t count;               // entries of a part
  int student_splits, splits;
  T coefficient;
  bool pull;       // leave coefficient * D_j / |D_j| in the place of D
  double* losses;  // a block's sum of column norms
};

// `op` over the warps' values of each lane, in ascending order.
template <class T, class Op>
KDOPS_DEVICE T gram_join_warps(T value, Op op) {
  constexpr int kWarps = kGramLossThreads / kWarp;
  KDOPS_SHARED(T, values, [kWarps][kWarp]);
  values[warp_id()][lane_id()] = value;
  __syncthreads();
  value = values[0][lane_id()];
  for (int w = 1; w < kWarps; ++w) value = op(value, values[w][lane_id()]);
  __syncthreads();  // the next call may write `values` again
  return value;
}

// Norms are scaled by the largest entry: no overflow, no underflow. A column of zeros has norm and
// pull zero, one with a NaN has NaN.
template <class T>
__global__ void __launch_bounds__(kGramLossThreads) gram_columns_kernel(GramColumns<T> q) {
  constexpr int kWarps = kGramLossThreads / kWarp;
  const int64_t item = blockIdx.x / q.col_blocks;
  const int col = static_cast<int>(blockIdx.x % q.col_blocks) * kWarp + lane_id();
  const bool inside = col < q.cols;
  T* column = q.parts + item * q.rows * q.cols + col;
  const auto for_rows = [&](const auto& body) {
    if (!inside) return;
    for (int row = warp_id(); row < q.rows; row += kWarps)
      body(column[static_cast<int64_t>(row) * q.cols]);
  };
  T largest(0), squares(0);
  for_rows([&](T& d) {
    d = gram_whole(&d, q.count, q.student_splits, q.splits);
    largest = max(largest, abs(d));
  });
  largest = gram_join_warps(largest, Max());
  const T unit = largest > 0 ? largest : T(1);
  for_rows([&](T& d) {
    const T part = d / unit;
    squares = fma(part, part, squares);
  });
  const T norm = unit * sqrt(gram_join_warps(squares, Add()));
  if (q.pull) for_rows([&](T& d) { d = norm > 0 ? q.coefficient * (d / norm) : norm * 0; });
  if (warp_id() != 0) return;
  const double sum = warp_sum(inside ? static_cast<double>(norm) : 0.0);
  if (lane_id() == 0) q.losses[blockIdx.x] = sum;
}

// loss = coefficient * the sum of the blocks' values, in one block.
template <class T>
__global__ void __launch_bounds__(kGramLossThreads)
    gram_total_kernel(const double* __restrict__ losses, int64_t count, double coefficient,
                      T* __restrict__ loss) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kGramLossThreads) sum += losses[i];
  sum = block_sum<kGramLossThreads>(sum);
  if (threadIdx.x == 0) *loss = static_cast<T>(coefficient * sum);
}

}  // namespace kdops::gram::gpu
