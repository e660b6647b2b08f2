// CPU glue of pairwise_distance: everything around the matrix products is fused.
#include "relation/pairwise_batch.h"

namespace kdops::relation {
namespace {

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
  to_laplacians<T>(w, T(2));
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

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pairwise_distance", TORCH_BOX(&kdops::relation::pairwise_distance_cpu));
  m.impl("pairwise_distance_backward", TORCH_BOX(&kdops::relation::pairwise_distance_backward_cpu));
}
