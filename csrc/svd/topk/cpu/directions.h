// Orthonormal vectors, and how others lose their parts along them.
#pragma once

#include "common/blas/gemm.h"
#include "svd/topk/cpu/few_vectors.h"

namespace kdops::svd::KDOPS_ISA {

// `count` orthonormal vectors, rows `apart` apart.
template <class T>
struct Directions {
  const T* rows;
  int64_t apart;
  int count, length;

  // parts (k x count) of the k vectors x, ldx apart, which lose them.
  void remove(T* x, int64_t ldx, int k, T* parts) const {
    inner_products<T>({x, ldx, k}, {rows, apart, count}, length, parts, count, 1);
    add(T(-1), parts, x, ldx, k);
  }
  void add(T factor, const T* parts, T* x, int64_t ldx, int k) const {
    gemm<T>(k, length, count, factor, {parts, count, 1}, {rows, apart, 1}, View<T>{x, ldx, 1},
            true);
  }
};

}  // namespace kdops::svd::KDOPS_ISA
