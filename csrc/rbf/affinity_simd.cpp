// The affinity kernels, compiled once per instruction set.
#include "rbf/affinity_simd.h"

#include "rbf/affinity_loss.h"

namespace kdops::rbf::KDOPS_ISA {
namespace {

// The rows of batch entry b.
template <class T>
RowSet<T> rows_of(const RowSet<T>& set, int64_t b) {
  const int64_t at = b * set.count * set.width;
  return {set.given + at,
          set.centred + at,
          set.transposed == nullptr ? nullptr : set.transposed + at,
          set.norms + b * set.count,
          set.sizes + b * set.count,
          set.count,
          set.width};
}

// First and last block in turn, so that every range of items holds as much of a triangle.
int64_t folded(int64_t item, int64_t blocks) {
  return item % 2 == 0 ? item / 2 : blocks - 1 - item / 2;
}

}  // namespace

template <class T>
void rbf_means(const RowSet<T>& x, const RowSet<T>& y, T* centre, int64_t begin, int64_t end) {
  for (int64_t b = begin; b < end; ++b) {
    const T* other = y.given == nullptr ? nullptr : y.given + b * y.count * y.width;
    mean_of(x.given + b * x.count * x.width, x.count, other, y.given == nullptr ? 0 : y.count,
            x.width, centre + b * x.width);
  }
}

template <class T>
void rbf_centre(const RowSet<T>& set, const T* centre, int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t b = begin / set.count;
    const int64_t stop = std::min(end, (b + 1) * set.count);
    centre_rows(rows_of(set, b), centre + b * set.width, begin - b * set.count,
                stop - b * set.count);
    begin = stop;
  }
}

template <class T>
void rbf_affinity_blocks(const AffinityProblem<T>& problem, int64_t begin, int64_t end) {
  const auto& q = problem;
  const int64_t blocks = blocks_of(q.x.count);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / blocks, i0 = folded(item % blocks, blocks) * kBlockRows;
    affinity_block(rows_of(q.x, b), rows_of(q.y, b), q.symmetric, q.gamma[b], i0,
                   std::min(i0 + kBlockRows, q.x.count), q.out + b * q.x.count * q.y.count);
  }
}

template <class T>
void rbf_affinity_backward_blocks(const AffinityBackward<T>& problem, int64_t begin, int64_t end) {
  const auto& q = problem;
  const bool columns = q.sides == Sides::columns;
  const int64_t n = columns ? q.other.count : q.own.count;
  const int64_t m = columns ? q.own.count : q.other.count;
  const int64_t blocks = blocks_of(q.own.count);
  Scratch<T> weights(kBlockRows * q.other.count), lengths(kBlockRows * q.other.count);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / blocks, i0 = item % blocks * kBlockRows;
    const int64_t i1 = std::min(i0 + kBlockRows, q.own.count), row = b * q.own.count + i0;
    const GradTimesK<T> product{q.grad + b * n * m, q.k + b * n * m, n, m};
    weight_block(product, q.sides, i0, i1, weights.get(), lengths.get());
    pull_block(weights.get(), lengths.get(), rows_of(q.own, b), rows_of(q.other, b), i0, i1,
               q.gamma[b], q.out + row * q.own.width);
  }
}

template <class T>
void rbf_affinity_slopes(const AffinitySlope<T>& problem, int64_t begin, int64_t end) {
  const auto& q = problem;
  const int64_t n = q.x.count, m = q.y.count, blocks = blocks_of(n);
  Scratch<T> products(kBlockRows * m);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / blocks, i0 = item % blocks * kBlockRows;
    q.sums[item] = slope_block(rows_of(q.x, b), rows_of(q.y, b), q.grad + b * n * m,
                               q.k + b * n * m, i0, std::min(i0 + kBlockRows, n), products.get());
  }
}

template <class T>
void rbf_affinity_loss_blocks(const AffinityLossProblem<T>& problem, int64_t begin, int64_t end) {
  const auto& q = problem;
  const RowSet<T> student = rows_of(q.student, 0), teacher = rows_of(q.teacher, 0);
  const int64_t n = student.count, width = student.width;
  // d/dx_i of the mean: both orders of a pair, times 2 for the square, times -2 gamma
  const double factor = -8 * q.gamma / (static_cast<double>(n) * static_cast<double>(n));
  for (int64_t item = begin; item < end; ++item) {
    const int64_t i0 = item * kBlockRows, i1 = std::min(i0 + kBlockRows, n);
    const LossSums sums = loss_block(student, teacher, i0, i1, static_cast<T>(q.gamma), q.gradients,
                                     static_cast<T>(factor), q.out + i0 * width);
    q.losses[item] = sums.loss;
    q.g_gammas[item] = 2 * sums.slope / q.gamma;
  }
}

KDOPS_COMPILE_REAL(rbf_means)
KDOPS_COMPILE_REAL(rbf_centre)
KDOPS_COMPILE_REAL(rbf_affinity_blocks)
KDOPS_COMPILE_REAL(rbf_affinity_backward_blocks)
KDOPS_COMPILE_REAL(rbf_affinity_slopes)
KDOPS_COMPILE_REAL(rbf_affinity_loss_blocks)

}  // namespace kdops::rbf::KDOPS_ISA
