// The accurate route of the top-k SVD: all triplets of a few matrices by the full SVD, of which the
// first k are returned and the small side is kept for the backward.
//
// For what a Gram matrix cannot resolve: small singular values among the top k, a cluster across
// position k, half of the spectrum or more. The matrices of a group are copied together, because
// the full SVD works on many at a time.
#pragma once

#include <cstring>

#include "common/simd/scratch.h"
#include "common/simd/transpose.h"
#include "svd/full/full_simd.h"
#include "svd/topk/cpu/layout.h"
#include "svd/topk/topk_simd.h"

namespace kdops::svd::KDOPS_ISA {

template <class T>
TopkOutputs<T> matrix_of(const TopkOutputs<T>& all, const TopkShape& shape, int64_t b) {
  const int64_t k = shape.k;
  return {all.U ? all.U + b * shape.m * k : nullptr, all.S + b * k, all.Vh + b * k * shape.n,
          all.saved + b * shape.size()};
}

template <class T>
class TopkDense {
 public:
  TopkDense(const TopkShape& shape, bool canonical) : shape_(shape), canonical_(canonical) {}

  // Matrices list[0..count) of the group at A; f[b] is the scale that saved refers to.
  void run(const T* A, const TopkOutputs<T>& out, const int* list, int count, const T* f) const {
    if (count == 0) return;
    const int64_t m = shape_.m, n = shape_.n, p = shape_.p;
    Scratch<T> a(count * m * n), u(count * m * p), s(count * p), vh(count * p * n);
    for (int i = 0; i < count; ++i) copy_rows(A + list[i] * m * n, a.get() + i * m * n);
    const SvdProblem<T> full{.a = a.get(),
                             .u = u.get(),
                             .s = s.get(),
                             .vh = vh.get(),
                             .m = static_cast<int>(m),
                             .n = static_cast<int>(n),
                             .canonical = canonical_};
    svd_full(full, 0, count);
    for (int i = 0; i < count; ++i)
      write(u.get() + i * m * p, s.get() + i * p, vh.get() + i * p * n,
            matrix_of(out, shape_, list[i]), f[list[i]]);
  }

 private:
  // One matrix row by row, as the full SVD wants it.
  void copy_rows(const T* A, T* to) const {
    const int64_t m = shape_.m, n = shape_.n;
    if (shape_.long_rows == shape_.tall)
      std::memcpy(to, A, sizeof(T) * m * n);
    else
      transpose_block(A, m, n, m, to, n);
  }

  void write(const T* u, const T* s, const T* vh, const TopkOutputs<T>& out, T f) const {
    const int64_t m = shape_.m, n = shape_.n;
    const int p = shape_.p, k = shape_.k;
    std::memcpy(out.S, s, sizeof(T) * k);
    std::memcpy(out.Vh, vh, sizeof(T) * k * n);
    for (int64_t r = 0; out.U && r < m; ++r) std::memcpy(out.U + r * k, u + r * p, sizeof(T) * k);
    T* values = out.saved + shape_.dense_values_at();
    T* vectors = out.saved + shape_.dense_vectors_at();
    for (int i = 0; i < p; ++i) values[i] = s[i] * f;
    if (shape_.tall) {
      std::memcpy(vectors, vh, sizeof(T) * p * p);
      return;
    }
    for (int i = 0; i < p; ++i)
      for (int q = 0; q < p; ++q) vectors[i * p + q] = u[q * p + i];
  }

  TopkShape shape_;
  bool canonical_;
};

}  // namespace kdops::svd::KDOPS_ISA
