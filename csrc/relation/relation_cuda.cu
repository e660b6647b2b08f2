// rkd_distance and rkd_angle on CUDA: the memory and the launches of their kernels, six for a loss
// with its gradient. No host synchronisation.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"
#include "gram/gram_plan.cuh"
#include "relation/angle_kernels.cuh"
#include "relation/limits.h"

namespace kdops::relation {
namespace {

using LossAndGrad = std::tuple<Tensor, Tensor>;

void check_rows(const char* op, const Tensor& student, const Tensor& teacher) {
  check_row_sets(op, student, teacher);
  STD_TORCH_CHECK(student.size(0) < kTooManyRowsOnCuda, op, ": expected fewer than ",
                  kTooManyRowsOnCuda, " rows, got ", student.size(0));
}

Tensor doubles(const Tensor& like, int64_t count) {
  return empty_for(like, {count}, ScalarType::Double);
}

// Both sides as the kernels see them, with the memory for what these find out, and the first two
// launches.
template <class T>
struct Prepared {
  const OnDevice& device;
  const char* op;
  gram::gpu::GramProblem<T> product{};
  std::vector<Tensor> memory;
  gpu::Sides<T> sides{};

  Prepared(const OnDevice& on, const char* name, const Tensor& student, const Tensor& teacher,
           int* near)
      : device(on), op(name) {
    const auto n = static_cast<int>(student.size(0));
    const int64_t longest = std::max(student.size(1), teacher.size(1));
    product.rows = product.cols = n, product.depth = static_cast<int>(longest);
    product.symmetric = true;
    const int64_t blocks =
        gram::gpu::gram_plan<gpu::RelationTile<T>>(product, 2, device.multiprocessors());
    sides.splits = product.splits;
    sides.column_blocks =
        static_cast<int>(std::max<int64_t>(1, (longest + gpu::kStatsCols - 1) / gpu::kStatsCols));
    sides.student = side_of(student), sides.teacher = side_of(teacher);
    gpu::relation_stats_kernel<T>
        <<<dim3(static_cast<unsigned>(sides.column_blocks), 2),
           dim3(gpu::kStatsCols, gpu::kStatsRows), 0, device.stream()>>>(sides);
    check_launch(op);
    gpu::relation_gram_kernel<T>
        <<<grid_of(op, blocks), gpu::RelationTile<T>::kThreads, 0, device.stream()>>>(product,
                                                                                      sides, near);
    check_launch(op);
  }

  int n() const { return sides.student.n; }
  dim3 both() const { return dim3(static_cast<unsigned>(n()), 2); }

  // The student's gradient from its Laplacian, which lies in the place of its first Gram part.
  template <class Others>
  Tensor pull_back(const Tensor& student, const Others& others) {
    Tensor grad = empty_for(student, {student.size(0), student.size(1)});
    if (grad.numel() == 0) return grad;
    gram::gpu::GramProblem<T> p{};
    p.rows = p.depth = p.split_depth = n(), p.cols = sides.student.d;
    p.splits = 1;
    p.col_tiles = (p.cols + gpu::GradientTile::kCols - 1) / gpu::GradientTile::kCols;
    p.tiles = p.col_tiles * ((p.rows + gpu::GradientTile::kRows - 1) / gpu::GradientTile::kRows);
    gpu::relation_gradient_kernel<T, Others>
        <<<grid_of(op, p.tiles), gpu::GradientTile::kThreads, 0, device.stream()>>>(
            p, sides.student.gram, sides.student, others, pointer<T>(grad));
    check_launch(op);
    return grad;
  }

 private:
  T* keep(const Tensor& like, int64_t count) {
    memory.push_back(empty_for(like, {count}));
    return pointer<T>(memory.back());
  }
  gpu::Side<T> side_of(const Tensor& x) {
    const int64_t count = x.size(0);
    gpu::Side<T> side{pointer<T>(x), static_cast<int>(count), static_cast<int>(x.size(1))};
    side.mean = keep(x, std::max<int64_t>(1, x.size(1))), side.tops = keep(x, sides.column_blocks);
    if (side.d == 0) side.data = side.mean;
    side.gram = keep(x, sides.splits * count * count), side.norms = keep(x, sides.splits * count);
    memory.push_back(doubles(x, 1));
    side.scale = pointer<double>(memory.back());
    return side;
  }
};

template <class T>
void launch_total(const OnDevice& device, const char* op, const double* losses, int count,
                  double factor, const Tensor& loss) {
  gpu::relation_total_kernel<T>
      <<<1, gpu::kRowThreads, 0, device.stream()>>>(losses, count, factor, pointer<T>(loss));
  check_launch(op);
}

template <class T>
LossAndGrad rkd_distance_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const char* op = "rkd_distance";
  const OnDevice device(student);
  Prepared<T> known(device, op, student, teacher, nullptr);
  const int n = known.n();
  const Tensor sums = doubles(student, 4 * n), losses = doubles(student, 2 * n);
  const Tensor units = doubles(student, sizeof(gpu::DistanceUnits) / sizeof(double));
  const gpu::RowSums rows{pointer<double>(sums), pointer<double>(sums) + 2 * n};
  const gpu::RowLosses found{pointer<double>(losses), pointer<double>(losses) + n,
                             static_cast<gpu::DistanceUnits*>(units.data_ptr()), 1.0 / n / n};
  gpu::relation_distance_kernel<T>
      <<<known.both(), gpu::kRowThreads, 0, device.stream()>>>(known.sides, rows);
  check_launch(op);
  gpu::rkd_distance_loss_kernel<T>
      <<<grid_of(op, n), gpu::kRowThreads, 0, device.stream()>>>(known.sides, rows, found);
  check_launch(op);
  Tensor loss = empty_for(student, {});
  if (!want_grad) {
    launch_total<T>(device, op, found.losses, n, found.factor, loss);
    return {loss, empty_for(student, {0})};
  }
  const Tensor lossy = empty_for(student, {n}, ScalarType::Int);
  gpu::rkd_distance_laplacian_kernel<T><<<grid_of(op, n), gpu::kRowThreads, 0, device.stream()>>>(
      known.sides, found, pointer<int>(lossy), pointer<T>(loss));
  check_launch(op);
  const gpu::Side<T>& side = known.sides.student;
  return {loss, known.pull_back(student, gpu::LossyRows<T>{side.gram, side, pointer<int>(lossy)})};
}

// Over how many parts the anchors of the opposite sides are split: as many as fill the device, beside
// the blocks for the weights, four times and no more; at most 16 and 256 MB of partial sums.
int64_t side_splits(int64_t n, int64_t multiprocessors) {
  const gpu::AngleTriples<gpu::AnglePair<float>> one{nullptr, static_cast<int>(n), 1};
  const int64_t weights =
      one.weight_columns() * ((n + gpu::kWeightAnchors - 1) / gpu::kWeightAnchors);
  const int64_t wanted = (4 * multiprocessors - weights) / one.side_blocks();
  const int64_t by_memory = (int64_t(1) << 25) / (n * n), by_work = n / 32;
  return std::max<int64_t>(1, std::min({wanted, by_memory, by_work, int64_t(16)}));
}

// The tables of the triples, with room for either kind of pairs.
struct AngleTables {
  int n, splits;
  Tensor pairs, m, w, losses;

  AngleTables(const Tensor& student, bool want_grad, int64_t multiprocessors)
      : n(static_cast<int>(student.size(0))),
        splits(static_cast<int>(side_splits(n, multiprocessors))),
        pairs(doubles(student, sizeof(gpu::FarPair) / sizeof(double) * square())),
        m(doubles(student, want_grad ? splits * square() : 0)),
        w(doubles(student, want_grad ? square() : 0)),
        losses(doubles(student, triples<gpu::FarPair>(false).loss_count())) {}

  int64_t square() const { return int64_t(n) * n; }
  template <class P>
  gpu::AngleTriples<P> triples(bool want_grad) const {
    using Real = typename P::Real;
    gpu::AngleTriples<P> t{static_cast<const P*>(pairs.data_ptr()), n, splits};
    if (want_grad) t.w = static_cast<Real*>(w.data_ptr()), t.m = static_cast<Real*>(m.data_ptr());
    return t;
  }
};

template <class T>
LossAndGrad rkd_angle_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  using Pair = gpu::AnglePair<T>;
  const char* op = "rkd_angle";
  const OnDevice device(student);
  const Tensor mark = empty_for(student, {1}, ScalarType::Int);
  int* near = pointer<int>(mark);
  Prepared<T> known(device, op, student, teacher, near);
  const AngleTables tables(student, want_grad, device.multiprocessors());
  Tensor loss = empty_for(student, {});
  gpu::AngleWork<T> work{known.sides, tables.triples<Pair>(want_grad),
                         tables.triples<gpu::FarPair>(want_grad), near, pointer<T>(loss)};
  work.triples.losses = work.far.losses = pointer<double>(tables.losses);
  const double n = tables.n;
  gpu::rkd_angle_pairs_kernel<T><<<known.both(), gpu::kRowThreads, 0, device.stream()>>>(
      known.sides, static_cast<Pair*>(tables.pairs.data_ptr()), near);
  check_launch(op);
  gpu::rkd_angle_triples_kernel<T>
      <<<grid_of(op, work.triples.blocks()), gpu::kTripleThreads, 0, device.stream()>>>(work);
  check_launch(op);
  gpu::rkd_angle_laplacian_kernel<T>
      <<<grid_of(op, tables.n), gpu::kRowThreads, 0, device.stream()>>>(
          work, want_grad ? known.sides.student.gram : nullptr);
  check_launch(op);
  if (want_grad) return {loss, known.pull_back(student, gpu::FarRows<T>{work, 0, false})};
  launch_total<T>(device, op, work.far.losses, work.far.loss_count(), 1.0 / n / n / n, loss);
  return {loss, empty_for(student, {0})};
}

template <class Body>
LossAndGrad on_rows(const char* op, const Tensor& student, const Tensor& teacher, bool want_grad,
                    const Body& body) {
  check_rows(op, student, teacher);
  if (student.size(0) == 0)
    return {torch::stable::new_zeros(student, {}), gradient_for(student, want_grad)};
  const Tensor s = contiguous_of(student), t = contiguous_of(teacher);
  return for_real_type(op, s, [&](auto kind) { return body(kind, s, t); });
}

LossAndGrad rkd_distance_cuda(const Tensor& student, const Tensor& teacher, bool want_grad) {
  return on_rows("rkd_distance", student, teacher, want_grad, [&](auto kind, auto& s, auto& t) {
    return rkd_distance_of<decltype(kind)>(s, t, want_grad);
  });
}

LossAndGrad rkd_angle_cuda(const Tensor& student, const Tensor& teacher, bool want_grad) {
  return on_rows("rkd_angle", student, teacher, want_grad, [&](auto kind, auto& s, auto& t) {
    return rkd_angle_of<decltype(kind)>(s, t, want_grad);
  });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CUDA, m) {
  m.impl("rkd_distance", TORCH_BOX(&kdops::relation::rkd_distance_cuda));
  m.impl("rkd_angle", TORCH_BOX(&kdops::relation::rkd_angle_cuda));
}
