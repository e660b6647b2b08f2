// The relation kernels on raw pointers, compiled once per instruction set.
#include "relation/relation_simd.h"

#include "relation/angle.h"
#include "relation/far.h"
#include "relation/losses.h"
#include "relation/pairwise.h"
#include "relation/product.h"
#include "relation/rows.h"

namespace kdops::relation::KDOPS_ISA {
using namespace kdops::KDOPS_ISA;

#define KDOPS_INSTANTIATE(T)                                                                       \
  template T column_sums<T>(Rows<T>, T*, int64_t, int64_t);                                        \
  template void centre_rows<T>(Rows<T>, const T*, T, T*, int64_t, T*, int64_t, int64_t);           \
  template bool distances<T>(const GramRows<T>&, bool, T, T*, int64_t, int64_t);                   \
  template bool angle_fields<T>(const GramRows<T>&, int, T*, int64_t, int64_t);                    \
  template void multiply_strips<T>(const Products<T>&, int64_t, int64_t);                          \
  template void multiply_symmetric<T>(const Products<T>&, int64_t, int64_t);                       \
  template void transpose_rows<T>(Rows<T>, T*, int64_t, int64_t, int64_t);                         \
  template AngleShape angle_shape<T>(int64_t);                                                     \
  template double angle_sweep<T>(T*, int64_t, int64_t, int64_t, T*);                               \
  template void angle_laplacian<T>(const T*, int64_t, const T*, int64_t, T, T*, int64_t, int64_t); \
  template void distance_sums<T>(const T*, int64_t, double*, double*, int64_t, int64_t);           \
  template void distance_losses<T>(const T*, const T*, int64_t, T, T, double*, double*, int64_t,   \
                                   int64_t);                                                       \
  template void distance_laplacian<T>(T*, const T*, int64_t, T, T, T, T, const T*, uint8_t*,       \
                                      int64_t, int64_t);                                           \
  template void finish_rows<T>(const Finish<T>&, int64_t, int64_t);                                \
  template void mark_lossy<T>(const PairLengths<T>&, const T*, uint8_t*, int64_t, int64_t);        \
  template void similarity_rows<T>(const T*, const T*, int64_t, T, double*, SimilarityFactors<T>,  \
                                   int64_t, int64_t);                                              \
  template void similarity_weights<T>(T*, const T*, int64_t, SimilarityFactors<T>, int64_t,        \
                                      int64_t);                                                    \
  template void add_transpose<T>(T*, int64_t, int64_t, int64_t);                                   \
  template void unit_rows<T>(Rows<T>, T*, T*, int64_t, int64_t);                                   \
  template void unit_rows_backward<T>(Rows<T>, const T*, T*, int64_t, int64_t);                    \
  template void distance_weights<T>(const PairLengths<T>&, const T*, T*, int64_t, int64_t);        \
  template void laplacian<T>(T*, int64_t, T, int64_t, int64_t);                                    \
  template void combine_rows<T>(const T*, int64_t, Rows<T>, T*, int64_t, int64_t);                 \
  template void angles<T>(const T*, const T*, int64_t, T*, int64_t, int64_t);                      \
  template void angles_backward<T>(const T*, const T*, const T*, int64_t, T*, T*, int64_t, int64_t);
KDOPS_INSTANTIATE(float)
KDOPS_INSTANTIATE(double)

}  // namespace kdops::relation::KDOPS_ISA
