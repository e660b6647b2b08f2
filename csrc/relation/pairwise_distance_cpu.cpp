// CPU glue of pairwise_distance: everything around the matrix products is fused.
#include "relation/pairwise_batch.h"

namespace kdops::relation {
namespace {

// One set of rows (B, n, D) as given and centred, what is known of the centred ones, and (for the
// backward) their norms.
template <class T>
struct Side {
  Tensor given, centred;
  std::vector<Centred<T>> items;
  std::vector<std::vector<T>> sizes;

  explicit Side(const Tensor& x) : given(x), centred(empty_for(x)), items(x.size(0)) {}
  void find_sizes() {
    for (const Centred<T>& item : items) sizes.push_back(item.sizes());
  }
};

// A batch of pairs, both sets centred together; without y the second is the first.
template <class T>
struct CentredPairs {
  Side<T> x;
  std::optional<Side<T>> others;

  CentredPairs(const Tensor& x_in, const std::optional<Tensor>& y_in) : x(x_in) {
    if (y_in) others.emplace(*y_in);
    for (int64_t b = 0; b < x_in.size(0); ++b) {
      std::vector<Rows<T>> parts{batch_rows<T>(x.given, b)};
      std::vector<T*> targets{batch_data<T>(x.centred, b)};
      if (others) {
        parts.push_back(batch_rows<T>(others->given, b));
        targets.push_back(batch_data<T>(others->centred, b));
      }
      std::vector<Centred<T>> both = Centred<T>::of(parts, targets);
      if (others) others->items[b] = std::move(both.back());
      x.items[b] = std::move(both.front());
    }
  }
  const Side<T>& y() const { return others ? *others : x; }
};

template <class T>
Tensor distance_of(const Tensor& x, const std::optional<Tensor>& y_or_none, bool squared) {
  const CentredPairs<T> pairs(x, y_or_none);
  const Side<T>& y = pairs.y();
  Tensor out = gram_of<T>(pairs.x.centred, y.centred, !y_or_none);
  const int64_t n = out.size(1), m = out.size(2);
  for (int64_t b = 0; b < x.size(0); ++b) {
    const T scale = pairs.x.items[b].scale;
    T* target = batch_data<T>(out, b);
    const GramRows<T> g{.x = batch_rows<T>(x, b),
                        .y = batch_rows<T>(y.given, b),
                        .scale = scale,
                        .x_norms = pairs.x.items[b].norms.data(),
                        .y_norms = y.items[b].norms.data(),
                        .gram = target};
    parallel_for(n, kPairFlops * m, KDOPS_BEST(distances<T>), g, squared, 1 / scale, target);
  }
  return out;
}

Tensor pairwise_distance_cpu(const Tensor& x_any, const std::optional<Tensor>& y_any,
                             bool squared) {
  check_pair("pairwise_distance", x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  const std::optional<Tensor> y = contiguous_of(y_any);
  return for_real_type("pairwise_distance", x,
                       [&]<class T>(T) { return distance_of<T>(x, y, squared); });
}

// The pairs seen from the rows of `mine`, which are those of distances d and weights w (B, n, m).
template <class T>
struct Seen {
  const Side<T>&mine, &other;
  Tensor d, w;
  bool squared;

  PairLengths<T> lengths(int64_t b) const {
    return {.d = batch_data<T>(d, b),
            .m = d.size(2),
            .squared = squared,
            .itself = &mine == &other,
            .unit = mine.items[b].scale,
            .x_sizes = mine.sizes[b].data(),
            .y_sizes = other.sizes[b].data()};
  }

  // Rows whose sums of differences cancel are summed again; factor: of the sums in `out`.
  void mend(T factor, const Tensor& out) const {
    const int64_t n = w.size(1), m = w.size(2);
    std::vector<uint8_t> lossy(w.size(0) * n);
    over_batch(out, kPairFlops * m, [&](int64_t b, int64_t begin, int64_t end) {
      KDOPS_BEST(mark_lossy<T>)
      (lengths(b), batch_data<T>(w, b), lossy.data() + b * n, begin, end);
    });
    for (int64_t b = 0; b < w.size(0); ++b)
      finish<T>({.lossy = lossy.data() + b * n,
                 .w = batch_data<T>(w, b),
                 .x = batch_rows<T>(mine.given, b),
                 .y = batch_rows<T>(other.given, b),
                 .scale = mine.items[b].scale,
                 .factor = factor,
                 .unit = T(1),
                 .out = batch_data<T>(out, b)});
  }

  // Of mine: 2 (s_i x_i - (W y)_i).
  Tensor gradient() const {
    Tensor out = product(w, other.centred);
    const int64_t m = w.size(2);
    over_batch(out, 4.0 * out.size(2) + 2.0 * m, [&](int64_t b, int64_t begin, int64_t end) {
      KDOPS_BEST(combine_rows<T>)
      (batch_data<T>(w, b), m, batch_rows<T>(mine.centred, b), batch_data<T>(out, b), begin, end);
    });
    mend(T(2), out);
    return out;
  }
};

Tensor turned(const Tensor& x) { return contiguous_of(torch::stable::transpose(x, 1, 2)); }

template <class T>
Pair distance_backward_of(const Tensor& grad, const Tensor& x, const std::optional<Tensor>& y,
                          bool squared, const Tensor& out) {
  CentredPairs<T> pairs(x, y);
  pairs.x.find_sizes();
  if (y) pairs.others->find_sizes();
  Tensor w = empty_for(grad);
  const Seen<T> from_x{pairs.x, pairs.y(), out, w, squared};
  over_batch(w, kPairFlops * w.size(2), [&](int64_t b, int64_t begin, int64_t end) {
    KDOPS_BEST(distance_weights<T>)
    (from_x.lengths(b), batch_data<T>(grad, b), batch_data<T>(w, b), begin, end);
  });
  if (y) {
    const Seen<T> from_y{pairs.y(), pairs.x, turned(out), turned(w), squared};
    return {from_x.gradient(), from_y.gradient()};
  }
  add_transposes<T>(w);
  to_laplacians<T>(w, T(2));
  const Tensor grad_x = product(w, pairs.x.centred);
  from_x.mend(T(-1), grad_x);
  return {grad_x, none(x)};
}

Pair pairwise_distance_backward_cpu(const Tensor& grad, const Tensor& x_any,
                                    const std::optional<Tensor>& y_any, bool squared,
                                    const Tensor& out) {
  const char* op = "pairwise_distance_backward";
  check_pair(op, x_any, y_any);
  check_pairs(op, "grad", grad, x_any, y_any);
  check_pairs(op, "out", out, x_any, y_any);
  const Tensor x = contiguous_of(x_any);
  const std::optional<Tensor> y = contiguous_of(y_any);
  const Tensor g = contiguous_of(grad), d = contiguous_of(out);
  return for_real_type(op, x,
                       [&]<class T>(T) { return distance_backward_of<T>(g, x, y, squared, d); });
}

}  // namespace
}  // namespace kdops::relation

STABLE_TORCH_LIBRARY_IMPL(kdops, CPU, m) {
  m.impl("pairwise_distance", TORCH_BOX(&kdops::relation::pairwise_distance_cpu));
  m.impl("pairwise_distance_backward", TORCH_BOX(&kdops::relation::pairwise_distance_backward_cpu));
}
