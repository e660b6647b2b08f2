// rkd_distance and rkd_angle on CUDA: launch geometry of their kernels. The two products
// (Gram matrices, and the Laplacian of the weights times the rows) are kdops::gram's: full float
// precision whatever torch's TF32 setting, and bitwise repeatable. No host synchronisation.
#include "common/torch/stream.h"
// stream.h first: it declares torch's CUDA shims weak
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/tensors.h"
#include "relation/angle_kernels.cuh"
#include "relation/limits.h"

namespace kdops::relation {
namespace {

using LossAndGrad = std::tuple<Tensor, Tensor>;

void check_rows(const char* op, const Tensor& student, const Tensor& teacher) {
  check_dim(op, "student", student, 2);
  check_dim(op, "teacher", teacher, 2);
  check_like(op, "teacher", teacher, student);
  check_size(op, "teacher", teacher, 0, student.size(0));
  STD_TORCH_CHECK(student.size(0) < kTooManyRowsOnCuda, op, ": expected fewer than ",
                  kTooManyRowsOnCuda, " rows, got ", student.size(0));
}

Tensor doubles(const Tensor& like, int64_t count) {
  return empty_for(like, {count}, ScalarType::Double);
}

// a bT / k of (n, k) and (m, k) matrices, through the dispatcher to the gram room: its products are
// means over k, and the kernels that read them know.
Tensor product(const Tensor& a, const Tensor* b) {
  const Tensor a3 = torch::stable::unsqueeze(a, 0);
  std::array<StableIValue, 2> stack{torch::stable::detail::from(a3),
                                    torch::stable::detail::from(std::optional<Tensor>())};
  if (b != nullptr)
    stack[1] = torch::stable::detail::from(std::optional<Tensor>(torch::stable::unsqueeze(*b, 0)));
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("kdops::gram", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::squeeze(torch::stable::detail::to<Tensor>(stack[0]), 0);
}

// Centred and scaled rows of one side, with their Gram matrix, and the rows as given.
template <class T>
struct Side {
  Tensor given, rows, norms, scale, gram;
  int n, d;

  // near: cleared for relation_pairs_kernel, or null.
  Side(const OnDevice& device, const char* op, const Tensor& x, int* near = nullptr)
      : given(x),
        rows(empty_for(x, {x.size(0), x.size(1)})),
        norms(empty_for(x, {x.size(0)})),
        scale(doubles(x, 1)),
        gram(rows),
        n(static_cast<int>(x.size(0))),
        d(static_cast<int>(x.size(1))) {
    const int64_t blocks = std::max(1, (d + gpu::kStatsCols - 1) / gpu::kStatsCols);
    const Tensor mean = empty_for(x, {x.size(1)});
    const Tensor tops = empty_for(x, {blocks});
    gpu::relation_stats_kernel<T>
        <<<grid_of(op, blocks), dim3(gpu::kStatsCols, gpu::kStatsRows), 0, device.stream()>>>(
            pointer<T>(x), n, d, pointer<T>(mean), pointer<T>(tops));
    check_launch(op);
    const gpu::RowStats<T> stats{pointer<T>(mean), pointer<T>(tops), static_cast<int>(blocks)};
    const gpu::CentredRows<T> centred{pointer<T>(rows), pointer<T>(norms), pointer<double>(scale),
                                      near};
    gpu::relation_centre_kernel<T><<<grid_of(op, n), gpu::kRowThreads, 0, device.stream()>>>(
        pointer<T>(x), d, stats, centred);
    check_launch(op);
    gram = product(rows, nullptr);
  }

  gpu::GivenRows<T> as_given() const {
    return {pointer<T>(given), n, d, pointer<T>(norms), pointer<double>(scale)};
  }
};

void launch_total(const OnDevice& device, const char* op, const double* a, const double* b,
                  int64_t count, double factor, double* out) {
  gpu::relation_total_kernel<<<1, gpu::kRowThreads, 0, device.stream()>>>(
      a, b, static_cast<int>(count), factor, out);
  check_launch(op);
}

// The loss in the dtype of the rows, as a 0-d tensor.
Tensor loss_of(const Tensor& total, const Tensor& like) {
  return torch::stable::select(torch::stable::to(total, like.scalar_type()), 0, 0);
}

// The Laplacian, which lies in the place of the Gram matrix, times rows: gram's second factor is
// the transposed view.
template <class T>
Tensor pull_back(const OnDevice& device, const char* op, const Side<T>& student, const int* lossy) {
  const Tensor columns = torch::stable::transpose(student.rows, 0, 1);
  const Tensor grad = contiguous_of(product(student.gram, &columns));
  gpu::relation_finish_kernel<T><<<grid_of(op, student.n), gpu::kRowThreads, 0, device.stream()>>>(
      pointer<T>(student.gram), student.as_given(), lossy, pointer<T>(grad));
  check_launch(op);
  return grad;
}

LossAndGrad nothing(const Tensor& student, bool want_grad) {
  Tensor loss = torch::stable::new_zeros(student, {});
  if (!want_grad) return {loss, empty_for(student, {0})};
  return {loss, torch::stable::new_zeros(student, {student.size(0), student.size(1)})};
}

template <class T>
void launch_distances(const OnDevice& device, const Side<T>& side, const Tensor& sums,
                      const Tensor& counts, double* totals) {
  const char* op = "rkd_distance";
  gpu::relation_distance_kernel<T><<<grid_of(op, side.n), gpu::kRowThreads, 0, device.stream()>>>(
      pointer<T>(side.gram), side.as_given(), pointer<double>(sums), pointer<double>(counts));
  check_launch(op);
  launch_total(device, op, pointer<double>(sums), pointer<double>(counts), side.n, 1.0, totals);
}

template <class T>
LossAndGrad rkd_distance_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const char* op = "rkd_distance";
  const OnDevice device(student);
  const Side<T> s(device, op, student), t(device, op, teacher);
  const Tensor sums = doubles(student, s.n), counts = doubles(student, s.n);
  const Tensor totals = doubles(student, sizeof(gpu::DistanceTotals) / sizeof(double));
  auto* shared = static_cast<gpu::DistanceTotals*>(totals.data_ptr());
  launch_distances(device, s, sums, counts, &shared->sum_s);
  launch_distances(device, t, sums, counts, &shared->sum_t);
  gpu::rkd_distance_loss_kernel<T><<<grid_of(op, s.n), gpu::kRowThreads, 0, device.stream()>>>(
      pointer<T>(s.gram), pointer<T>(t.gram), s.n, shared, pointer<double>(sums),
      pointer<double>(counts));
  check_launch(op);
  launch_total(device, op, pointer<double>(sums), pointer<double>(counts), s.n, 1.0 / s.n / s.n,
               &shared->loss);
  const Tensor loss = loss_of(torch::stable::narrow(const_cast<Tensor&>(totals), 0, 4, 1), student);
  if (!want_grad) return {loss, empty_for(student, {0})};
  const Tensor lossy = empty_for(student, {s.n}, ScalarType::Int);
  gpu::rkd_distance_laplacian_kernel<T><<<grid_of(op, s.n), gpu::kRowThreads, 0, device.stream()>>>(
      pointer<T>(s.gram), pointer<T>(t.gram), s.n, pointer<T>(s.norms), shared,
      pointer<double>(s.scale), pointer<int>(lossy));
  check_launch(op);
  return {loss, pull_back(device, op, s, pointer<int>(lossy))};
}

// Over how many parts the anchors of the opposite sides are split: enough blocks to fill the
// device, at most 16 and 256 MB of partial sums.
int64_t side_splits(int64_t n, int64_t blocks, int64_t multiprocessors) {
  const int64_t wanted = (4 * multiprocessors + blocks - 1) / blocks;
  const int64_t by_memory = std::max<int64_t>(1, (int64_t(1) << 25) / (n * n));
  const int64_t by_work = std::max<int64_t>(1, n / (4 * gpu::kSideStage));
  return std::max<int64_t>(1, std::min({wanted, by_memory, by_work, int64_t(16)}));
}

// What the kernels of the triples share. The tables have room for either kind of pairs, and the
// kernels of both are launched (angle_pairs.cuh).
struct Angles {
  const OnDevice& device;
  int n, tiles, splits;
  Tensor pairs, m, w, losses, total;
  const int* near;

  Angles(const OnDevice& on, const Tensor& student, bool want_grad, const int* near_rows)
      : device(on),
        n(static_cast<int>(student.size(0))),
        tiles((n + gpu::kSideTile - 1) / gpu::kSideTile),
        splits(static_cast<int>(side_splits(n, side_blocks(), device.multiprocessors()))),
        pairs(doubles(student, sizeof(gpu::FarPair) / sizeof(double) * square())),
        m(doubles(student, want_grad ? splits * square() : 0)),
        w(doubles(student, want_grad ? square() : 0)),
        losses(doubles(student, side_blocks() * splits)),
        total(doubles(student, 1)),
        near(near_rows) {}

  int64_t square() const { return int64_t(n) * n; }
  int64_t side_blocks() const { return int64_t(tiles) * (tiles + 1) / 2; }
  template <class P>
  P* table() const {
    return static_cast<P*>(pairs.data_ptr());
  }
  template <class T>
  static T* room(const Tensor& x) {
    return static_cast<T*>(x.data_ptr());
  }
  template <class P>
  gpu::AngleWeights<P> weights() const {
    return {.pairs = table<P>(),
            .n = n,
            .splits = splits,
            .w = room<typename P::Real>(w),
            .m = room<typename P::Real>(m),
            .loss = pointer<double>(total),
            .near = near};
  }
};

constexpr const char* kAngle = "rkd_angle";

template <class T>
void launch_pairs(const Angles& a, const Side<T>& side, bool teacher, int* near) {
  gpu::relation_pairs_kernel<T><<<grid_of(kAngle, a.n), gpu::kRowThreads, 0, a.device.stream()>>>(
      pointer<T>(side.gram), side.as_given(), teacher, a.table<gpu::AnglePair<T>>(), near);
  check_launch(kAngle);
}

// Losses and, if wanted, the opposite sides and the weights at the anchors.
template <class P>
void launch_triples(const Angles& a, bool want_grad) {
  using T = typename P::Real;
  gpu::rkd_angle_side_kernel<P>
      <<<dim3(static_cast<unsigned>(a.side_blocks()), static_cast<unsigned>(a.splits)),
         dim3(gpu::kSideThreads, gpu::kSideThreads), 0, a.device.stream()>>>(
          a.table<P>(), a.n, a.tiles, (a.n + a.splits - 1) / a.splits, a.near,
          want_grad ? Angles::room<T>(a.m) : nullptr, pointer<double>(a.losses));
  check_launch(kAngle);
  if (!want_grad) return;
  gpu::rkd_angle_weight_kernel<P><<<dim3((a.n + gpu::kWeightThreads - 1) / gpu::kWeightThreads,
                                         (a.n + gpu::kWeightAnchors - 1) / gpu::kWeightAnchors),
                                    gpu::kWeightThreads, 0, a.device.stream()>>>(
      a.table<P>(), a.n, a.near, Angles::room<T>(a.w));
  check_launch(kAngle);
}

template <class T>
void launch_far_pairs(const Angles& a, const Side<T>& s, const Side<T>& t) {
  gpu::rkd_angle_far_pairs_kernel<T>
      <<<grid_of(kAngle, a.n), gpu::kRowThreads, 0, a.device.stream()>>>(
          s.as_given(), t.as_given(), a.near, a.table<gpu::FarPair>());
  check_launch(kAngle);
}

template <class T>
void launch_far_gradient(const Angles& a, const Side<T>& s, const Tensor& grad) {
  gpu::rkd_angle_far_gradient_kernel<T>
      <<<grid_of(kAngle, a.n), gpu::kRowThreads, 0, a.device.stream()>>>(
          a.weights<gpu::FarPair>(), s.as_given(), pointer<T>(grad));
  check_launch(kAngle);
}

template <class T>
LossAndGrad rkd_angle_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  using Pair = gpu::AnglePair<T>;
  const OnDevice device(student);
  const Tensor mark = empty_for(student, {1}, ScalarType::Int);
  int* near = pointer<int>(mark);
  const Side<T> s(device, kAngle, student, near), t(device, kAngle, teacher);
  const Angles a(device, student, want_grad, near);
  launch_pairs<T>(a, s, false, near);
  launch_pairs<T>(a, t, true, near);
  launch_triples<Pair>(a, want_grad);
  launch_far_pairs<T>(a, s, t);
  launch_triples<gpu::FarPair>(a, want_grad);
  launch_total(device, kAngle, pointer<double>(a.losses), nullptr, a.losses.size(0),
               1.0 / a.n / a.n / a.n, pointer<double>(a.total));
  const Tensor loss = loss_of(a.total, student);
  if (!want_grad) return {loss, empty_for(student, {0})};
  gpu::rkd_angle_laplacian_kernel<T>
      <<<grid_of(kAngle, a.n), gpu::kRowThreads, 0, device.stream()>>>(
          a.weights<Pair>(), pointer<double>(s.scale), pointer<T>(s.gram));
  check_launch(kAngle);
  const Tensor grad = pull_back(device, kAngle, s, nullptr);
  launch_far_gradient(a, s, grad);
  return {loss, grad};
}

template <class Body>
LossAndGrad on_rows(const char* op, const Tensor& student, const Tensor& teacher, bool want_grad,
                    const Body& body) {
  check_rows(op, student, teacher);
  if (student.size(0) == 0) return nothing(student, want_grad);
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
