// CPU glue of pairwise_angle, by halves of distances and their reciprocals (angle.h).
#include "relation/far_rows.h"

namespace kdops::relation {
namespace {

// d/2 and 1/d of all pairs, (N, N) each; near: some pairs need more digits than T has.
template <class T>
struct HalfAndInverse {
  Prepared<T> prepared;
  Scratch<T> half, inverse;
  bool near = false;

  explicit HalfAndInverse(const Tensor& x)
      : prepared(x), half(x.size(0) * x.size(0)), inverse(x.size(0) * x.size(0)) {
    prepared.compute();
    const int64_t n = x.size(0);
    std::atomic<bool> any_near = false;
    parallel_for(n, 2 * kPairFlops * n, [&](int64_t begin, int64_t end) {
      if (KDOPS_BEST(distances<T>)(prepared.pairs(), false, T(1), half.get(), begin, end))
        any_near = true;
      for (int64_t e = begin * n; e < end * n; ++e) {
        inverse[e] = half[e] == 0 ? T(0) : std::min(1 / half[e], std::numeric_limits<T>::max());
        half[e] /= 2;
      }
    });
    near = any_near;
  }
};

// The op in double and back, see rkd_angle.
template <class Op, class... Inputs>
Tensor in_double(const Op& op, const Inputs&... inputs) {
  const Tensor result = op(torch::stable::to(inputs, ScalarType::Double)...);
  return torch::stable::to(result, ScalarType::Float);
}

// Of rows of double so far apart that double, too, says too little.
Tensor far_angle_of(const Tensor& x) {
  const FarRows rows(x);
  const int64_t n = rows.pairs.n;
  Tensor out = empty_for(x, {n, n, n});
  parallel_for(n, 12.0 * n * n, KDOPS_BEST(far_angles), rows.pairs, pointer<double>(out));
  return out;
}

template <class T>
Tensor angle_of(const Tensor& x) {
  const int64_t n = x.size(0);
  const HalfAndInverse<T> known(x);
  if (known.near) {
    if constexpr (sizeof(T) == 8) return far_angle_of(x);
    return in_double(&angle_of<double>, x);
  }
  Tensor out = empty_for(x, {n, n, n});
  parallel_for(n, 6.0 * n * n, KDOPS_BEST(angles<T>), known.inverse.get(), known.half.get(), n,
               pointer<T>(out));
  return out;
}

Tensor pairwise_angle_cpu(const Tensor& x_any) {
  check_dim("pairwise_angle", "x", x_any, 2);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_angle", x, [&](auto real) { return angle_of<decltype(real)>(x); });
}

Tensor far_angle_backward_of(const Tensor& grad, const Tensor& x) {
  const FarRows rows(x);
  Tensor w =
      angle_weights<double>(x, 24, [&](double* w, double* m, int64_t, int64_t begin, int64_t end) {
        KDOPS_BEST(far_angles_backward)(pointer<double>(grad), rows.pairs, w, m, begin, end);
      });
  return far_gradient(rows, 1, w);
}

template <class T>
Tensor angle_backward_of(const Tensor& grad, const Tensor& x) {
  const int64_t n = x.size(0);
  const HalfAndInverse<T> known(x);
  if (known.near) {
    if constexpr (sizeof(T) == 8) return far_angle_backward_of(grad, x);
    return in_double(&angle_backward_of<double>, grad, x);
  }
  Tensor w = angle_weights<T>(x, 12, [&](T* w, T* m, int64_t, int64_t begin, int64_t end) {
    KDOPS_BEST(angles_backward<T>)
    (pointer<T>(grad), known.inverse.get(), known.half.get(), n, w, m, begin, end);
  });
  const SplitScale<T> scale(known.prepared.centred.scale);
  to_laplacians<T>(w, 2 * scale.inside);
  const Tensor out = product(pointer<T>(w), known.prepared.centred.rows, x);
  multiply_by(scale.after, out);
  return out;
}

Tensor pairwise_angle_backward_cpu(const Tensor& grad, const Tensor& x_any) {
  const char* op = "pairwise_angle_backward";
  check_dim(op, "x", x_any, 2);
  check_sizes(op, "grad", grad, x_any, {x_any.size(0), x_any.size(0), x_any.size(0)});
  const Tensor x = contiguous_of(x_any), g = contiguous_of(grad);
  return for_real_type(op, x, [&](auto real) { return angle_backward_of<decltype(real)>(g, x); });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pairwise_angle", TORCH_BOX(&kdops::relation::pairwise_angle_cpu));
  m.impl("pairwise_angle_backward", TORCH_BOX(&kdops::relation::pairwise_angle_backward_cpu));
}
