// CPU glue of the pairwise ops: everything around the matrix products is fused.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "relation/finish.h"

namespace kdops::relation {
namespace {

using Pair = std::tuple<Tensor, Tensor>;

void check_pair(const char* op, const Tensor& x, const std::optional<Tensor>& y) {
  check_dim(op, "x", x, 3);
  if (!y) return;
  check_dim(op, "y", *y, 3);
  check_like(op, "y", *y, x);
  check_size(op, "y", *y, 0, x.size(0));
  check_size(op, "y", *y, 2, x.size(2));
}

Tensor like(const Tensor& x) { return empty_for(x, {x.size(0), x.size(1), x.size(2)}); }
Tensor none(const Tensor& x) { return empty_for(x, {0}); }

template <class T>
Rows<T> batch_rows(const Tensor& x, int64_t b) {
  return {pointer<T>(x) + b * x.size(1) * x.size(2), x.size(1), x.size(2)};
}

// The cotangent of the pairs, and what else is of their shape.
void check_pairs(const char* op, const char* name, const Tensor& pairs, const Tensor& x,
                 const std::optional<Tensor>& y) {
  check_dim(op, name, pairs, 3);
  check_like(op, name, pairs, x);
  check_size(op, name, pairs, 0, x.size(0));
  check_size(op, name, pairs, 1, x.size(1));
  check_size(op, name, pairs, 2, (y ? *y : x).size(1));
}

// Centred rows of a batch of pairs; without y the second is the first.
template <class T>
struct CentredPairs {
  Tensor x, y;
  Tensor x_given, y_given;
  std::vector<std::vector<Centred<T>>> items;

  CentredPairs(const Tensor& x_in, const std::optional<Tensor>& y_in)
      : x(like(x_in)),
        y(y_in ? like(*y_in) : x),
        x_given(x_in),
        y_given(y_in ? *y_in : x_in),
        items(x_in.size(0)) {
    for (int64_t b = 0; b < x_in.size(0); ++b) {
      T* target = const_cast<T*>(batch_rows<T>(x, b).data);
      if (y_in)
        items[b] = Centred<T>::of({batch_rows<T>(x_in, b), batch_rows<T>(*y_in, b)},
                                  {target, const_cast<T*>(batch_rows<T>(y, b).data)});
      else
        items[b] = Centred<T>::of({batch_rows<T>(x_in, b)}, {target});
    }
  }
  T scale(int64_t b) const { return items[b].front().scale; }
};

template <class T>
Tensor distance_of(const Tensor& x, const std::optional<Tensor>& y, bool squared) {
  const CentredPairs<T> pairs(x, y);
  Tensor out = gram_of<T>(pairs.x, pairs.y, !y);
  const int64_t n = out.size(1), m = out.size(2);
  for (int64_t b = 0; b < x.size(0); ++b) {
    const Centred<T>&left = pairs.items[b].front(), &right = pairs.items[b].back();
    T* target = pointer<T>(out) + b * n * m;
    const GramRows<T> g{batch_rows<T>(pairs.x_given, b),
                        batch_rows<T>(pairs.y_given, b),
                        left.scale,
                        left.norms.data(),
                        right.norms.data(),
                        target};
    parallel_for(n, kPairFlops * m, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(distances<T>)(g, squared, 1 / left.scale, target, begin, end);
    });
  }
  return out;
}

Tensor pairwise_distance_cpu(const Tensor& x_any, const std::optional<Tensor>& y_any,
                             bool squared) {
  check_pair("pairwise_distance", x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  std::optional<Tensor> y;
  if (y_any) y = contiguous_of(*y_any);
  return for_real_type("pairwise_distance", x,
                       [&](auto real) { return distance_of<decltype(real)>(x, y, squared); });
}

// The rows of all matrices of the batch as one range.
template <class Body>
void over_batch(const Tensor& x, double flops, const Body& body) {
  const int64_t n = x.size(1);
  parallel_for(x.size(0) * n, flops,
               [&](int64_t begin, int64_t end) { over_items(begin, end, n, body); });
}

template <class T>
void add_transposes(Tensor& w) {
  const int64_t n = w.size(1), tiles = tile_rows(n);
  parallel_for(w.size(0) * tiles, 1.0 * kTileSide * n, [&](int64_t begin, int64_t end) {
    over_items(begin, end, tiles, [&](int64_t b, int64_t first, int64_t last) {
      KDOPS_BEST(add_transpose<T>)(pointer<T>(w) + b * n * n, n, first, last);
    });
  });
}

// One set of rows (B, n, D) of a batch of pairs: as given, centred, and with the norms of these.
template <class T>
struct Side {
  const Tensor &given, &centred;
  std::vector<std::vector<T>> sizes;

  Side(const Tensor& given_in, const Tensor& centred_in) : given(given_in), centred(centred_in) {}
};

template <class T>
Side<T> side_of(const CentredPairs<T>& pairs, bool second) {
  Side<T> side(second ? pairs.y_given : pairs.x_given, second ? pairs.y : pairs.x);
  for (const auto& item : pairs.items)
    side.sizes.push_back((second ? item.back() : item.front()).sizes());
  return side;
}

// The pairs of batch entry b, seen from the rows of d (B, n, m).
template <class T>
PairLengths<T> lengths_at(const CentredPairs<T>& pairs, const Tensor& d, bool squared,
                          const Side<T>& mine, const Side<T>& other, int64_t b) {
  const int64_t m = d.size(2);
  return {.d = pointer<T>(d) + b * d.size(1) * m,
          .m = m,
          .squared = squared,
          .itself = &mine == &other,
          .unit = pairs.scale(b),
          .x_sizes = mine.sizes[b].data(),
          .y_sizes = other.sizes[b].data()};
}

// Rows whose sums of differences cancel are summed again; factor: of the sums in `out`.
template <class T>
void mend(const CentredPairs<T>& pairs, const Tensor& w, const Tensor& d, bool squared,
          const Side<T>& mine, const Side<T>& other, T factor, const Tensor& out) {
  const int64_t n = w.size(1), m = w.size(2);
  std::vector<uint8_t> lossy(w.size(0) * n);
  over_batch(out, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
    KDOPS_BEST(mark_lossy<T>)
    (lengths_at(pairs, d, squared, mine, other, b), pointer<T>(w) + b * n * m, lossy.data() + b * n,
     begin, end);
  });
  for (int64_t b = 0; b < w.size(0); ++b)
    finish<T>({lossy.data() + b * n, pointer<T>(w) + b * n * m, batch_rows<T>(mine.given, b),
               batch_rows<T>(other.given, b), pairs.scale(b), factor, T(1),
               const_cast<T*>(batch_rows<T>(out, b).data)});
}

// gx of W (B, n, m): 2 (s_i x_i - (W y)_i).
template <class T>
Tensor one_side(const CentredPairs<T>& pairs, const Tensor& w, const Tensor& d, bool squared,
                const Side<T>& mine, const Side<T>& other) {
  Tensor out = product(w, other.centred);
  const int64_t n = w.size(1), m = w.size(2), length = out.size(2);
  over_batch(out, 4.0 * length + 2.0 * m, [&](int64_t b, int64_t i0, int64_t i1) {
    KDOPS_BEST(combine_rows<T>)
    (pointer<T>(w) + b * n * m, m, batch_rows<T>(mine.centred, b),
     const_cast<T*>(batch_rows<T>(out, b).data), i0, i1);
  });
  mend(pairs, w, d, squared, mine, other, T(2), out);
  return out;
}

Tensor turned(const Tensor& x) { return contiguous_of(torch::stable::transpose(x, 1, 2)); }

template <class T>
Pair distance_backward_of(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& y,
                          bool squared, const Tensor& out) {
  const CentredPairs<T> pairs(x, y);
  const Side<T> left = side_of(pairs, false), right = side_of(pairs, true);
  Tensor w = like(grad);
  const int64_t n = w.size(1), m = w.size(2);
  over_batch(w, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
    const int64_t at = b * n * m;
    KDOPS_BEST(distance_weights<T>)
    (lengths_at(pairs, out, squared, left, right, b), pointer<T>(grad) + at, pointer<T>(w) + at,
     begin, end);
  });
  if (y)
    return {one_side<T>(pairs, w, out, squared, left, right),
            one_side<T>(pairs, turned(w), turned(out), squared, right, left)};
  add_transposes<T>(w);
  over_batch(w, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<T>)(pointer<T>(w) + b * n * n, n, T(2), begin, end);
  });
  const Tensor grad_x = product(w, pairs.x);
  mend(pairs, w, out, squared, left, left, T(-1), grad_x);
  return {grad_x, none(x)};
}

Pair pairwise_distance_backward_cpu(const Tensor& grad, const Tensor& x_any,
                                    const std::optional<Tensor>& y_any, bool squared,
                                    const Tensor& out) {
  check_pair("pairwise_distance_backward", x_any, y_any);
  check_pairs("pairwise_distance_backward", "grad", grad, x_any, y_any);
  check_pairs("pairwise_distance_backward", "out", out, x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  std::optional<Tensor> y;
  if (y_any) y = contiguous_of(*y_any);
  const Tensor g = contiguous_of(grad), d = contiguous_of(out);
  return for_real_type("pairwise_distance_backward", x, [&](auto real) {
    return distance_backward_of<decltype(real)>(g, x, y, squared, d);
  });
}

// ---- cosines ----------------------------------------------------------------------------------

template <class T>
struct UnitRows {
  Tensor rows;
  std::vector<T> inverse;

  explicit UnitRows(const Tensor& x) : rows(like(x)), inverse(x.size(0) * x.size(1)) {
    const Rows<T> all{pointer<T>(x), x.size(0) * x.size(1), x.size(2)};
    parallel_for(all.count, 6.0 * all.length, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(unit_rows<T>)(all, pointer<T>(rows), inverse.data(), begin, end);
    });
  }
  // The cotangent of x in the place of the one of the unit rows.
  Tensor backward(Tensor grad) const {
    const Rows<T> all{pointer<T>(rows), rows.size(0) * rows.size(1), rows.size(2)};
    parallel_for(all.count, 6.0 * all.length, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(unit_rows_backward<T>)(all, inverse.data(), pointer<T>(grad), begin, end);
    });
    return grad;
  }
};

Tensor pairwise_cosine_cpu(const Tensor& x_any, const std::optional<Tensor>& y_any) {
  check_pair("pairwise_cosine", x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_cosine", x, [&](auto real) {
    using T = decltype(real);
    const UnitRows<T> left(x);
    if (!y_any) return gram_of<T>(left.rows, left.rows, true);
    return gram_of<T>(left.rows, UnitRows<T>(contiguous_of(*y_any)).rows, false);
  });
}

Pair pairwise_cosine_backward_cpu(const Tensor& grad, const Tensor& x_any,
                                  const std::optional<Tensor>& y_any) {
  check_pair("pairwise_cosine_backward", x_any, y_any);
  check_pairs("pairwise_cosine_backward", "grad", grad, x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_cosine_backward", x, [&](auto real) -> Pair {
    using T = decltype(real);
    const UnitRows<T> left(x);
    if (!y_any) {
      Tensor both = torch::stable::clone(contiguous_of(grad));
      add_transposes<T>(both);
      return {left.backward(product(both, left.rows)), none(x)};
    }
    const UnitRows<T> right(contiguous_of(*y_any));
    return {left.backward(product(grad, right.rows)),
            right.backward(product(torch::stable::transpose(grad, 1, 2), left.rows))};
  });
}

// ---- angles -----------------------------------------------------------------------------------

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

template <class T>
Tensor angle_of(const Tensor& x) {
  const int64_t n = x.size(0);
  const HalfAndInverse<T> known(x);
  if (known.near) return in_double(&angle_of<double>, x);
  Tensor out = empty_for(x, {n, n, n});
  parallel_for(n, 6.0 * n * n, [&](int64_t begin, int64_t end) {
    KDOPS_BEST(angles<T>)
    (known.inverse.get(), known.half.get(), n, pointer<T>(out), begin, end);
  });
  return out;
}

Tensor pairwise_angle_cpu(const Tensor& x_any) {
  check_dim("pairwise_angle", "x", x_any, 2);
  const Tensor x = contiguous_of(x_any);
  return for_real_type("pairwise_angle", x, [&](auto real) { return angle_of<decltype(real)>(x); });
}

template <class T>
Tensor angle_backward_of(const Tensor& grad, const Tensor& x) {
  const int64_t n = x.size(0), groups = std::min<int64_t>(n, 4);  // fixed: the order of sums
  const HalfAndInverse<T> known(x);
  if (known.near) return in_double(&angle_backward_of<double>, grad, x);
  Tensor w = empty_for(x, {1, n, n});
  Scratch<T> opposite(groups * n * n);
  parallel_for(groups, 12.0 * n * n * n / std::max<int64_t>(groups, 1),
               [&](int64_t g0, int64_t g1) {
                 for (int64_t g = g0; g < g1; ++g) {
                   T* m = opposite.get() + g * n * n;
                   std::memset(m, 0, sizeof(T) * n * n);
                   KDOPS_BEST(angles_backward<T>)
                   (pointer<T>(grad), known.inverse.get(), known.half.get(), n, pointer<T>(w), m,
                    n * g / groups, n * (g + 1) / groups);
                 }
               });
  T* total = pointer<T>(w);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t e = 0; e < n * n; ++e) total[e] += opposite[g * n * n + e];
  add_transposes<T>(w);
  const SplitScale<T> scale(known.prepared.centred.scale);
  over_batch(w, kPairFlops * n, [&](int64_t, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<T>)(total, n, 2 * scale.inside, begin, end);
  });
  const Tensor out = product(total, known.prepared.centred.rows, x);
  multiply_by(scale.after, out);
  return out;
}

Tensor pairwise_angle_backward_cpu(const Tensor& grad, const Tensor& x_any) {
  const char* op = "pairwise_angle_backward";
  check_dim(op, "grad", grad, 3);
  check_dim(op, "x", x_any, 2);
  check_like(op, "grad", grad, x_any);
  for (int axis = 0; axis < 3; ++axis) check_size(op, "grad", grad, axis, x_any.size(0));
  const Tensor x = contiguous_of(x_any), g = contiguous_of(grad);
  return for_real_type(op, x, [&](auto real) { return angle_backward_of<decltype(real)>(g, x); });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pairwise_distance", TORCH_BOX(&kdops::relation::pairwise_distance_cpu));
  m.impl("pairwise_distance_backward", TORCH_BOX(&kdops::relation::pairwise_distance_backward_cpu));
  m.impl("pairwise_cosine", TORCH_BOX(&kdops::relation::pairwise_cosine_cpu));
  m.impl("pairwise_cosine_backward", TORCH_BOX(&kdops::relation::pairwise_cosine_backward_cpu));
  m.impl("pairwise_angle", TORCH_BOX(&kdops::relation::pairwise_angle_cpu));
  m.impl("pairwise_angle_backward", TORCH_BOX(&kdops::relation::pairwise_angle_backward_cpu));
}
