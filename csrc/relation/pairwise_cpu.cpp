// CPU glue of the pairwise ops: everything around the matrix products is fused.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "relation/prepare.h"

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

// Centred rows of a batch of pairs; without y the second is the first.
template <class T>
struct CentredPairs {
  Tensor x, y;
  std::vector<std::vector<Centred<T>>> items;

  CentredPairs(const Tensor& x_in, const std::optional<Tensor>& y_in, CentreOptions options = {})
      : x(like(x_in)), y(y_in ? like(*y_in) : x), items(x_in.size(0)) {
    for (int64_t b = 0; b < x_in.size(0); ++b) {
      T* target = const_cast<T*>(batch_rows<T>(x, b).data);
      if (y_in)
        items[b] = Centred<T>::of({batch_rows<T>(x_in, b), batch_rows<T>(*y_in, b)},
                                  {target, const_cast<T*>(batch_rows<T>(y, b).data)}, options);
      else
        items[b] = Centred<T>::of({batch_rows<T>(x_in, b)}, {target}, options);
    }
  }
};

template <class T>
Tensor distance_of(const Tensor& x, const std::optional<Tensor>& y, bool squared) {
  const CentredPairs<T> pairs(x, y);
  Tensor out = gram_of<T>(pairs.x, pairs.y, !y);
  const int64_t n = out.size(1), m = out.size(2);
  for (int64_t b = 0; b < x.size(0); ++b) {
    const Centred<T>&left = pairs.items[b].front(), &right = pairs.items[b].back();
    T* target = pointer<T>(out) + b * n * m;
    const GramRows<T> g{left.rows, right.rows, left.norms.data(), right.norms.data(), target};
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

// gx of W (B, n, m): 2 (s_i x_i - (W y)_i); `columns` for the other side.
template <class T>
Tensor one_side(const Tensor& w, const Tensor& x, const Tensor& y, bool columns) {
  Tensor out = product(columns ? torch::stable::transpose(w, 1, 2) : w, y);
  const int64_t n = w.size(1), m = w.size(2);
  over_batch(x, 4.0 * x.size(2) + 2.0 * (columns ? n : m), [&](int64_t b, int64_t i0, int64_t i1) {
    KDOPS_BEST(combine_rows<T>)
    (pointer<T>(w) + b * n * m, n, m, columns, batch_rows<T>(x, b),
     const_cast<T*>(batch_rows<T>(out, b).data), i0, i1);
  });
  return out;
}

template <class T>
Pair distance_backward_of(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& y,
                          bool squared, const Tensor& out) {
  const CentredPairs<T> pairs(x, y, {.rescale = false});  // the weights are in the units of x
  Tensor w = like(grad);
  const int64_t n = w.size(1), m = w.size(2);
  over_batch(w, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
    const int64_t at = b * n * m;
    KDOPS_BEST(distance_weights<T>)
    (pointer<T>(grad) + at, pointer<T>(out) + at, squared, m, pointer<T>(w) + at, begin, end);
  });
  if (y) {
    return {one_side<T>(w, pairs.x, pairs.y, false), one_side<T>(w, pairs.y, pairs.x, true)};
  }
  add_transposes<T>(w);
  over_batch(w, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<T>)(pointer<T>(w) + b * n * n, n, T(2), begin, end);
  });
  return {product(w, pairs.x), none(x)};
}

Pair pairwise_distance_backward_cpu(const Tensor& grad, const Tensor& x_any,
                                    const std::optional<Tensor>& y_any, bool squared,
                                    const Tensor& out) {
  check_pair("pairwise_distance_backward", x_any, y_any);
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

// d/2 and 1/d of all pairs, (N, N) each.
template <class T>
struct HalfAndInverse {
  Prepared<T> prepared;
  Scratch<T> half, inverse;

  explicit HalfAndInverse(const Tensor& x)
      : prepared(x), half(x.size(0) * x.size(0)), inverse(x.size(0) * x.size(0)) {
    prepared.compute();
    const int64_t n = x.size(0);
    parallel_for(n, 2 * kPairFlops * n, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(distances<T>)(prepared.pairs(), false, T(1), half.get(), begin, end);
      for (int64_t e = begin * n; e < end * n; ++e) {
        inverse[e] = half[e] == 0 ? T(0) : 1 / half[e];
        half[e] /= 2;
      }
    });
  }
};

Tensor pairwise_angle_cpu(const Tensor& x_any) {
  check_dim("pairwise_angle", "x", x_any, 2);
  const Tensor x = contiguous_of(x_any);
  const int64_t n = x.size(0);
  return for_real_type("pairwise_angle", x, [&](auto real) {
    using T = decltype(real);
    const HalfAndInverse<T> known(x);
    Tensor out = empty_for(x, {n, n, n});
    parallel_for(n, 6.0 * n * n, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(angles<T>)
      (known.inverse.get(), known.half.get(), n, pointer<T>(out), begin, end);
    });
    return out;
  });
}

template <class T>
Tensor angle_backward_of(const Tensor& grad, const Tensor& x) {
  const int64_t n = x.size(0), groups = std::min<int64_t>(n, 4);  // fixed: the order of sums
  const HalfAndInverse<T> known(x);
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
  over_batch(w, kPairFlops * n, [&](int64_t, int64_t begin, int64_t end) {
    KDOPS_BEST(laplacian<T>)(total, n, 2 * known.prepared.centred.scale, begin, end);
  });
  return product(total, known.prepared.centred.rows, x);
}

Tensor pairwise_angle_backward_cpu(const Tensor& grad, const Tensor& x_any) {
  check_dim("pairwise_angle_backward", "grad", grad, 3);
  check_dim("pairwise_angle_backward", "x", x_any, 2);
  const Tensor x = contiguous_of(x_any), g = contiguous_of(grad);
  return for_real_type("pairwise_angle_backward", x,
                       [&](auto real) { return angle_backward_of<decltype(real)>(g, x); });
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
