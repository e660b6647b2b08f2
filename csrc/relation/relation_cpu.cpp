// CPU glue of the relation losses: rows -> centred rows -> Gram -> fused loss and weights -> one
// product with the Laplacian of the weights.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "relation/far_rows.h"

namespace kdops::relation {
namespace {

using LossAndGrad = std::tuple<Tensor, Tensor>;

// body(a number of the type, student, teacher), both contiguous and not empty.
template <class Body>
LossAndGrad on_rows(const char* op, const Tensor& student, const Tensor& teacher, bool want_grad,
                    const Body& body) {
  check_row_sets(op, student, teacher);
  const Tensor s = contiguous_of(student), t = contiguous_of(teacher);
  return for_real_type(op, s, [&]<class T>(T real) -> LossAndGrad {
    if (s.size(0) == 0) return {scalar_for<T>(s, 0), gradient_for(s, want_grad)};
    return body(real, s, t);
  });
}

// ---- angles -----------------------------------------------------------------------------------

// 1/d and d/2 of one side into the table of the sweep; true if some rows are too near.
template <class T>
bool fill_fields(Prepared<T>& prepared, int field, T* data) {
  prepared.compute();
  const int64_t n = prepared.centred.rows.count;
  std::atomic<bool> near = false;
  parallel_for(n, kPairFlops * n, [&](int64_t begin, int64_t end) {
    if (KDOPS_BEST(angle_fields<T>)(prepared.pairs(), field, data, begin, end)) near = true;
  });
  return near;
}

// A loss in double and back, for rows so near to each other that float says too little of the
// directions between them.
template <class Loss>
LossAndGrad in_double(const Loss& loss_of, const Tensor& student, const Tensor& teacher,
                      bool want_grad) {
  auto [loss, grad] = loss_of(torch::stable::to(student, ScalarType::Double),
                              torch::stable::to(teacher, ScalarType::Double), want_grad);
  return {torch::stable::to(loss, student.scalar_type()),
          torch::stable::to(grad, student.scalar_type())};
}

// Rows of double so far apart that double, too, says too little.
LossAndGrad rkd_angle_far(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const FarRows s(student), t(teacher);
  const int64_t n = student.size(0);
  const double cube = static_cast<double>(n) * n * n;
  std::vector<double> losses(anchor_groups(n));
  Tensor w = angle_weights<double>(
      student, 24, [&](double* w, double* m, int64_t g, int64_t begin, int64_t end) {
        losses[g] = KDOPS_BEST(far_angle_loss)(s.pairs, t.pairs, w, m, begin, end);
      });
  const double loss = ordered_sum(losses) / cube;
  if (!want_grad) return {scalar_for<double>(student, loss), empty_for(student, {0})};
  return {scalar_for<double>(student, loss),
          far_gradient(s, std::isnan(loss) ? loss : 1 / cube, w)};
}

template <class T>
LossAndGrad rkd_angle_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const int64_t n = student.size(0);
  const AngleShape shape = KDOPS_BEST(angle_shape<T>)(n);
  const int64_t blocks = shape.blocks, groups = shape.groups;
  Scratch<T> data(shape.table);
  Prepared<T> s(student), t(teacher);
  bool near[2];
  for_both_sides(student, teacher, [&](int64_t side) {
    near[side] = side == 0 ? fill_fields(s, kStudentInverse, data.get())
                           : fill_fields(t, kTeacherInverse, data.get());
  });
  if (near[0] || near[1]) {
    if constexpr (sizeof(T) == 8) return rkd_angle_far(student, teacher, want_grad);
    return in_double(&rkd_angle_of<double>, student, teacher, want_grad);
  }
  Scratch<T> opposite(want_grad ? groups * n * n : 0);
  std::vector<double> losses(groups);
  parallel_for(groups, 10.0 * n * n * n / groups, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = blocks * g / groups, last = blocks * (g + 1) / groups;
      T* m = want_grad ? opposite.get() + g * n * n : nullptr;
      if (want_grad) std::memset(m, 0, sizeof(T) * n * n);
      losses[g] = KDOPS_BEST(angle_sweep<T>)(data.get(), n, first, last, m);
    }
  });
  const double cube = static_cast<double>(n) * n * n, loss = ordered_sum(losses) / cube;
  if (!want_grad) return {scalar_for<T>(student, loss), empty_for(student, {0})};
  // D counts each unordered pair once: dL/dx_i = 2 sum_j V_ij (x_i - x_j).
  const SplitScale<T> scale(s.centred.scale);
  const double factor = std::isnan(loss) ? loss : 2 * static_cast<double>(scale.inside) / cube;
  const auto laplacian = [&](int64_t begin, int64_t end) {
    KDOPS_BEST(angle_laplacian<T>)
    (data.get(), n, opposite.get(), groups, static_cast<T>(factor), s.gram.get(), begin, end);
  };
  const Tensor grad = product(s.gram.get(), s.centred.rows, student, laplacian);
  multiply_by(scale.after, grad);
  return {scalar_for<T>(student, loss), grad};
}

LossAndGrad rkd_angle_cpu(const Tensor& student, const Tensor& teacher, bool want_grad) {
  return on_rows("rkd_angle", student, teacher, want_grad, [&](auto real, auto& s, auto& t) {
    return rkd_angle_of<decltype(real)>(s, t, want_grad);
  });
}

// ---- distances --------------------------------------------------------------------------------

// Distances (in the place of the Gram matrix) and their mean.
template <class T>
struct MeanDistances {
  Prepared<T> prepared;
  T* d;
  double inverse_mean = 0, count = 0;

  explicit MeanDistances(const Tensor& x) : prepared(x), d(prepared.gram.get()) {}

  void compute() {
    prepared.compute();
    const int64_t n = prepared.centred.rows.count;
    std::vector<double> sums(n), counts(n);
    parallel_for(n, 2 * kPairFlops * n, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(distances<T>)(prepared.pairs(), false, T(1), d, begin, end);
      KDOPS_BEST(distance_sums<T>)(d, n, sums.data(), counts.data(), begin, end);
    });
    const double sum = ordered_sum(sums);
    count = ordered_sum(counts);
    inverse_mean = sum == 0 ? 0 : count / sum;
  }
};

template <class T>
LossAndGrad rkd_distance_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const int64_t n = student.size(0);
  MeanDistances<T> s(student), t(teacher);
  for_both_sides(student, teacher, [&](int64_t side) { (side == 0 ? s : t).compute(); });
  const DistancePair<T> pair{.student = s.d,
                             .teacher = t.d,
                             .n = n,
                             .inverse_mean_s = static_cast<T>(s.inverse_mean),
                             .inverse_mean_t = static_cast<T>(t.inverse_mean)};
  std::vector<double> losses(n), slopes(n);
  const DistanceLosses<T> sums{.d = pair, .losses = losses.data(), .slopes = slopes.data()};
  parallel_for(n, kPairFlops * n, KDOPS_BEST(distance_losses<T>), sums);
  const double pairs = static_cast<double>(n) * n, loss = ordered_sum(losses) / pairs;
  if (!want_grad) return {scalar_for<T>(student, loss), empty_for(student, {0})};
  const double shift = s.count == 0 ? 0 : ordered_sum(slopes) / s.count;
  // Ordered pairs, so 4 W_ij (x_i - x_j) with W = dL/dd / (2 d).
  const Centred<T>& centred = s.prepared.centred;
  const SplitScale<T> scale(centred.scale);
  const double factor = std::isnan(loss) ? loss : 2 * s.inverse_mean * scale.inside / pairs;
  const std::vector<T> sizes = centred.sizes();
  std::vector<uint8_t> lossy(n);
  const DistanceLaplacian<T> weights{.d = pair,
                                     .shift = static_cast<T>(shift),
                                     .scale = static_cast<T>(factor),
                                     .sizes = sizes.data(),
                                     .lossy = lossy.data()};
  const auto laplacian = [&](int64_t begin, int64_t end) {
    KDOPS_BEST(distance_laplacian<T>)(weights, begin, end);
  };
  const Tensor grad = product(s.d, centred.rows, student, laplacian);
  const Rows<T> given = rows_of<T>(student);
  finish<T>({.lossy = lossy.data(),
             .w = s.d,
             .x = given,
             .y = given,
             .scale = centred.scale,
             .factor = T(-1),
             .unit = scale.after,
             .out = pointer<T>(grad)});
  return {scalar_for<T>(student, loss), grad};
}

LossAndGrad rkd_distance_cpu(const Tensor& student, const Tensor& teacher, bool want_grad) {
  return on_rows("rkd_distance", student, teacher, want_grad, [&](auto real, auto& s, auto& t) {
    return rkd_distance_of<decltype(real)>(s, t, want_grad);
  });
}

// ---- similarity -------------------------------------------------------------------------------

// Rows 1e-30 times as long as the longest still have a Gram matrix.
template <class T>
inline constexpr int kLift = sizeof(T) == 4 ? 30 : 300;

template <class T>
LossAndGrad similarity_of(const Tensor& student, const Tensor& teacher, bool want_grad) {
  const int64_t n = student.size(0);
  Prepared<T> s(student), t(teacher);
  for_both_sides(student, teacher, [&](int64_t side) {
    (side == 0 ? s : t).compute({.centre = false, .lift = kLift<T>});
  });
  T *gram_s = s.gram.get(), *gram_t = t.gram.get();
  const SplitScale<T> scale(s.centred.scale);
  const double pairs = static_cast<double>(n) * n;
  std::vector<double> losses(n);
  Scratch<T> work(3 * n);
  const SimilarityFactors<T> factors{work.get(), work.get() + n, work.get() + 2 * n};
  parallel_for(n, 2 * kPairFlops * n, [&](int64_t begin, int64_t end) {
    KDOPS_BEST(similarity_rows<T>)
    (gram_s, gram_t, n, static_cast<T>(2 * scale.inside / pairs), losses.data(), factors, begin,
     end);
  });
  const double loss = ordered_sum(losses) / pairs;
  if (!want_grad) return {scalar_for<T>(student, loss), empty_for(student, {0})};
  const auto weights = [&](int64_t begin, int64_t end) {
    KDOPS_BEST(similarity_weights<T>)(gram_s, gram_t, n, factors, begin, end);
  };
  const Tensor grad = product(gram_s, s.centred.rows, student, weights);
  multiply_by(scale.after, grad);
  return {scalar_for<T>(student, loss), grad};
}

LossAndGrad similarity_cpu(const Tensor& student, const Tensor& teacher, bool want_grad) {
  return on_rows("similarity", student, teacher, want_grad, [&](auto real, auto& s, auto& t) {
    return similarity_of<decltype(real)>(s, t, want_grad);
  });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("rkd_distance", TORCH_BOX(&kdops::relation::rkd_distance_cpu));
  m.impl("rkd_angle", TORCH_BOX(&kdops::relation::rkd_angle_cpu));
  m.impl("similarity", TORCH_BOX(&kdops::relation::similarity_cpu));
}
