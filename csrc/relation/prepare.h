// Glue shared by the CPU ops of the relation room: centred rows, Gram matrices, threads.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "relation/relation_simd.h"

namespace kdops {

using torch::headeronly::ScalarType;

template <class T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <class T>
Rows<T> rows_of(const Tensor& x) {
  return {pointer<T>(x), x.size(-2), x.size(-1)};
}

// Calls body with a value of the element type.
template <class Body>
auto for_real_type(const char* op, const Tensor& x, const Body& body) {
  const ScalarType dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op,
                  ": expected float32 or float64");
  return dtype == ScalarType::Float ? body(float{}) : body(double{});
}

// a (.., n, d) times b (.., d, m), or b (.., m, d) transposed. Below kSmallProduct multiply-adds
// the dispatcher costs more than the work, and the house's own product serves.
inline constexpr int64_t kSmallProduct = int64_t(1) << 16;

inline Tensor product(const Tensor& a, const Tensor& b, bool transposed = false) {
  const int64_t n = a.size(-2), d = a.size(-1), m = b.size(transposed ? -2 : -1);
  const bool one = a.dim() == 2 || a.size(0) == 1;
  if (!one || n * d * m > kSmallProduct || !a.is_contiguous() || !b.is_contiguous())
    return torch::stable::matmul(a, transposed ? torch::stable::transpose(b, -2, -1) : b);
  Tensor out =
      a.dim() == 2 ? torch::stable::new_empty(a, {n, m}) : torch::stable::new_empty(a, {1, n, m});
  for_real_type("product", a, [&](auto real) {
    using T = decltype(real);
    KDOPS_BEST(small_product<T>)
    (n, m, d, pointer<T>(a), pointer<T>(b), transposed, pointer<T>(out));
  });
  return out;
}
inline Tensor gram_of(const Tensor& a, const Tensor& b) { return product(a, b, true); }

// x xT. Few long rows that fit in L2: half of the entries as dot products, which is 2 to 4 times
// faster than the general product (measured: 64 to 256 rows of 512).
inline Tensor gram_of(const Tensor& x) {
  const int64_t n = x.size(-2), d = x.size(-1);
  const int64_t bytes = n * d * (x.scalar_type() == ScalarType::Double ? 8 : 4);
  if (d < 256 || bytes > (int64_t(1) << 20)) return gram_of(x, x);
  const int64_t batch = x.dim() == 2 ? 1 : x.size(0);
  Tensor out = x.dim() == 2 ? torch::stable::new_empty(x, {n, n})
                            : torch::stable::new_empty(x, {batch, n, n});
  for_real_type("gram", x, [&](auto real) {
    using T = decltype(real);
    for (int64_t b = 0; b < batch; ++b)
      parallel_for(gram_items(n), 16.0 * n * d, [&](int64_t begin, int64_t end) {
        KDOPS_BEST(symmetric_gram<T>)
        ({pointer<T>(x) + b * n * d, n, d}, pointer<T>(out) + b * n * n, begin, end);
      });
  });
  return out;
}

// 2^-e that brings `largest` to [1/2, 1).
template <class T>
T power_of_two_scale(T largest) {
  if (largest == 0) return 1;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(T(1), -std::max(-120, std::min(120, exponent)));
}

// Rows minus a common centre, times a common power of two, and their squared norms.
struct CentreOptions {
  bool centre = true, rescale = true;
};

template <class T>
struct Centred {
  Rows<T> rows;
  std::vector<T> norms;
  T scale = 1;

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
    for (int64_t chunk = begin; chunk < end; ++chunk)
      for (const auto& part : parts) {
        const T top = KDOPS_BEST(column_sums<T>)(part, centre.data(), chunk * kColumnChunk,
                                                 std::min(length, (chunk + 1) * kColumnChunk));
        largest[chunk] = std::max(largest[chunk], top);
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

template <class T>
std::vector<Centred<T>> Centred<T>::of(const std::vector<Rows<T>>& parts,
                                       const std::vector<T*>& targets, CentreOptions options) {
  const int64_t length = parts[0].length;
  std::vector<T> centre(length, T(0));
  const T largest = centre_of(parts, centre);
  if (!options.centre) std::fill(centre.begin(), centre.end(), T(0));
  std::vector<Centred> result(parts.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    result[p].rows = {targets[p], parts[p].count, length};
    result[p].norms.resize(parts[p].count);
    if (options.rescale) result[p].scale = power_of_two_scale(largest);
    parallel_for(parts[p].count, 4.0 * length, [&](int64_t begin, int64_t end) {
      KDOPS_BEST(centre_rows<T>)
      (parts[p], centre.data(), result[p].scale, targets[p], result[p].norms.data(), begin, end);
    });
  }
  return result;
}

// One set of rows (N, D), ready for distances among them.
template <class T>
struct Prepared {
  Tensor rows, gram;
  Centred<T> centred;

  explicit Prepared(const Tensor& x, CentreOptions options = {})
      : rows(torch::stable::new_empty(x, {x.size(0), x.size(1)})),
        gram(rows),
        centred(std::move(Centred<T>::of({rows_of<T>(x)}, {pointer<T>(rows)}, options)[0])) {
    gram = gram_of(rows);
  }
  GramRows<T> pairs() const {
    return {centred.rows, centred.rows, centred.norms.data(), centred.norms.data(),
            pointer<T>(gram)};
  }
};

// Cost per pair of rows.h's distances, in the units of parallel_for.
inline constexpr double kPairFlops = 8;

}  // namespace kdops
