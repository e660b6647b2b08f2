// Glue shared by the CPU ops of the relation room: centred rows, Gram matrices, threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "common/shared/close_pair.h"
#include "common/shared/unit_row.h"
#include "common/simd/scratch.h"
#include "common/torch/check.h"
#include "common/torch/dispatch.h"
#include "common/torch/parallel.h"
#include "common/torch/tensors.h"
#include "relation/relation_simd.h"

namespace kdops::relation {

template <class T>
Rows<T> rows_of(const Tensor& x) {
  return {pointer<T>(x), x.size(-2), x.size(-1)};
}

// body(b, first, last): the items begin .. end of a batch, `count` items each, matrix by matrix.
template <class Body>
void over_items(int64_t begin, int64_t end, int64_t count, const Body& body) {
  while (begin < end) {
    const int64_t b = begin / count, stop = std::min(end, (b + 1) * count);
    body(b, begin - b * count, stop - b * count);
    begin = stop;
  }
}

struct RowsAreMade {
  void operator()(int64_t, int64_t) const {}
};

// All strips of p; make_rows(begin, end) is called for rows of a (of all products of the batch,
// counted on) before they are read.
template <class T, class Body = RowsAreMade>
void multiply(const Products<T>& p, const Body& make_rows = {}) {
  const int64_t strips = product_strips(p.n), rows = strip_rows(p.n);
  parallel_for(p.batch * strips, 2.0 * rows * p.d * p.m, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t first = s / strips * p.n, i = s % strips * rows;
      make_rows(first + i, first + std::min(p.n, i + rows));
      KDOPS_BEST(multiply_strips<T>)(p, s, s + 1);
    }
  });
}

// a (B, n, d) times b (B, d, m), b contiguous.
inline Tensor product(const Tensor& a, const Tensor& b) {
  const int64_t batch = a.size(0), n = a.size(1), d = a.size(2), m = b.size(2);
  Tensor out = empty_for(b, {batch, n, m});
  for_real_type("product", a, [&]<class T>(T) {
    multiply<T>({.batch = batch,
                 .n = n,
                 .m = m,
                 .d = d,
                 .a = pointer<T>(a),
                 .a_row = a.stride(1),
                 .a_col = a.stride(2),
                 .a_step = a.stride(0),
                 .b = pointer<T>(b),
                 .b_row = m,
                 .b_step = d * m,
                 .out = pointer<T>(out)});
  });
  return out;
}

// a (n, n) times x as a new tensor; make_rows as for `multiply`.
template <class T, class Body = RowsAreMade>
Tensor product(const T* a, const Rows<T>& x, const Tensor& like, const Body& make_rows = {}) {
  const int64_t n = x.count, d = x.length;
  Tensor out = empty_for(like, {n, d});
  multiply<T>({1, n, d, n, a, n, 1, 0, x.data, x.stride, 0, pointer<T>(out)}, make_rows);
  return out;
}

// Transposed copies of a batch of rows, their rows spread_stride apart.
template <class T>
struct Turned {
  int64_t length, stride;
  Scratch<T> data;

  Turned(int64_t batch, int64_t rows, int64_t columns)
      : length(columns), stride(spread_stride(rows)), data(batch * columns * stride) {}
  // Tile rows begin .. end of x, which is number `item` of the batch.
  void take(Rows<T> x, int64_t item, int64_t begin, int64_t end) {
    KDOPS_BEST(transpose_rows<T>)(x, data.get() + item * length * stride, stride, begin, end);
  }
};

// out (batch, n, m) = x (batch, n, d) times yT, y being turned; with `symmetric` y is x. x are the
// rows of the first of the batch, the others follow.
template <class T>
void gram_into(int64_t batch, Rows<T> x, const Turned<T>& y, int64_t m, bool symmetric, T* out) {
  const int64_t n = x.count, d = x.length;
  const Products<T> p{
      batch, n, m, d, x.data, x.stride, 1, n * x.stride, y.data.get(), y.stride, d * y.stride, out};
  if (!symmetric) return multiply(p);
  parallel_for(batch * symmetric_strips(n), 2.0 * strip_rows(n) * d * m,
               KDOPS_BEST(multiply_symmetric<T>), p);
}

// x (B, n, d) times yT as a new tensor, x and y (B, m, d) contiguous.
template <class T>
Tensor gram_of(const Tensor& x, const Tensor& y, bool symmetric) {
  const int64_t batch = x.size(0), m = y.size(1), d = y.size(2);
  Tensor out = empty_for(x, {batch, x.size(1), m});
  Turned<T> turned(batch, m, d);
  parallel_for(batch * tile_rows(m), 4.0 * kTileSide * d, [&](int64_t begin, int64_t end) {
    over_items(begin, end, tile_rows(m), [&](int64_t b, int64_t first, int64_t last) {
      turned.take({pointer<T>(y) + b * m * d, m, d}, b, first, last);
    });
  });
  gram_into<T>(batch, rows_of<T>(x), turned, m, symmetric, pointer<T>(out));
  return out;
}

// Rows minus a common centre, times a common power of two, and their squared norms.
struct CentreOptions {
  bool centre = true;
  int lift =
      0;  // rows of size 2^lift instead of one, where a Gram matrix of short rows would vanish
};

template <class T>
struct Centred {
  Rows<T> rows;
  std::vector<T> norms;
  T scale = 1;

  // The roots of the norms.
  std::vector<T> sizes() const {
    std::vector<T> roots(norms.size());
    for (size_t i = 0; i < norms.size(); ++i) roots[i] = std::sqrt(norms[i]);
    return roots;
  }

  // The largest squared norm that is finite.
  T longest() const {
    T most = 0;
    for (const T norm : norms)
      if (norm > most && norm <= std::numeric_limits<T>::max()) most = norm;
    return most;
  }

  // Several matrices of rows of the same length, by the mean and the largest entry of all.
  static std::vector<Centred> of(const std::vector<Rows<T>>& parts, const std::vector<T*>& targets,
                                 CentreOptions options = {});
};

inline constexpr int64_t kColumnChunk = 64;

// The mean of all rows, and max|entry|.
template <class T>
T centre_of(const std::vector<Rows<T>>& parts, std::vector<T>& centre) {
  const int64_t length = parts[0].length;
  int64_t count = 0;
  for (const auto& part : parts) count += part.count;
  const int64_t chunks = (length + kColumnChunk - 1) / kColumnChunk;
  std::vector<T> largest(chunks, T(0));
  parallel_for(chunks, 4.0 * kColumnChunk * count, [&](int64_t begin, int64_t end) {
    for (const auto& part : parts) {  // all chunks of the thread at once: whole rows, read in order
      const T top = KDOPS_BEST(column_sums<T>)(part, centre.data(), begin * kColumnChunk,
                                               std::min(length, end * kColumnChunk));
      largest[begin] = std::max(largest[begin], top);
    }
  });
  for (T& value : centre) {
    value /= static_cast<T>(std::max<int64_t>(count, 1));
    if (!std::isfinite(value)) value = 0;  // the sum overflowed: any other centre is right too
  }
  T top = 0;
  for (const T value : largest) top = std::max(top, value);
  return top;
}

// What all rows have in common; the centre is zero where the options do without.
template <class T>
struct Common {
  std::vector<T> centre;
  T scale = 1;

  Common(const std::vector<Rows<T>>& parts, CentreOptions options) : centre(parts[0].length, T(0)) {
    const T largest = centre_of(parts, centre);
    if (!options.centre) std::fill(centre.begin(), centre.end(), T(0));
    const T lift = std::ldexp(T(1), options.lift);
    const T most = row_scale(std::numeric_limits<T>::denorm_min());
    scale = std::min(row_scale(largest), most / lift) * lift;
  }
  // Rows begin .. end of `part` into target, `stride` apart.
  void apply(const Rows<T>& part, T* target, int64_t stride, std::vector<T>& norms, int64_t begin,
             int64_t end) const {
    KDOPS_BEST(centre_rows<T>)
    (part, centre.data(), scale, target, stride, norms.data(), begin, end);
  }
};

template <class T>
std::vector<Centred<T>> Centred<T>::of(const std::vector<Rows<T>>& parts,
                                       const std::vector<T*>& targets, CentreOptions options) {
  const int64_t length = parts[0].length;
  const Common<T> common(parts, options);
  std::vector<Centred> result(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    result[p].rows = {targets[p], parts[p].count, length};
    result[p].norms.resize(parts[p].count);
    result[p].scale = common.scale;
    parallel_for(parts[p].count, 4.0 * length, [&](int64_t begin, int64_t end) {
      common.apply(parts[p], targets[p], length, result[p].norms, begin, end);
    });
  }
  return result;
}

// One set of rows (N, D), ready for distances among them once `compute` has run, on any thread.
// The centred rows lie spread_stride(D) apart, gram is (N, N).
template <class T>
struct Prepared {
  Tensor x;
  Scratch<T> rows, gram;
  Centred<T> centred;

  explicit Prepared(const Tensor& x_in)
      : x(x_in), rows(x.size(0) * spread_stride(x.size(1))), gram(x.size(0) * x.size(0)) {}

  void compute(CentreOptions options = {}) {
    const Rows<T> in = rows_of<T>(x);
    const Common<T> common({in}, options);
    centred.scale = common.scale;
    centred.rows = {rows.get(), in.count, in.length, spread_stride(in.length)};
    centred.norms.resize(in.count);
    Turned<T> turned(1, in.count, in.length);
    parallel_for(tile_rows(in.count), 8.0 * kTileSide * in.length, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {  // turned while it lies in the nearest cache
        common.apply(in, rows.get(), centred.rows.stride, centred.norms, tile * kTileSide,
                     std::min(in.count, (tile + 1) * kTileSide));
        turned.take(centred.rows, 0, tile, tile + 1);
      }
    });
    gram_into<T>(1, centred.rows, turned, in.count, true, gram.get());
  }
  GramRows<T> pairs() const {
    const Rows<T> given = rows_of<T>(x);
    const T* norms = centred.norms.data();
    return {given, given, centred.scale, norms, norms, gram.get(), kFarPart<T> * centred.longest()};
  }
};

// body(0) for the student and body(1) for the teacher: each on a thread of its own where they are
// too small to be worth several threads each, or where there are two threads and two equal sides
// (then no thread waits for the other between the steps or reads what the other has written).
inline constexpr double kSmallGram = 1 << 23;

template <class Body>
void for_both_sides(const Tensor& student, const Tensor& teacher, const Body& body) {
  const int64_t n = student.size(0), length_s = student.size(1), length_t = teacher.size(1);
  const double multiplications = static_cast<double>(n) * n * length_s;
  const bool alike = 8 * std::abs(length_s - length_t) <= length_s;
  if (multiplications > kSmallGram && !(alike && torch::stable::get_num_threads() == 2))
    return body(0), body(1);
  parallel_for(2, 2 * multiplications, [&](int64_t begin, int64_t end) {
    for (int64_t side = begin; side < end; ++side) body(side);
  });
}

// Cost per pair of rows.h's distances, in the units of parallel_for.
inline constexpr double kPairFlops = 8;

}  // namespace kdops::relation
