// CPU entry points of the relation room, one copy per instruction set (common/simd/isa.h). Each works
// on a range of rows, columns or blocks; the glue gives ranges to threads. T is float or double.
#pragma once

#include <cstdint>

#include "common/simd/isa.h"

namespace kdops::relation {

// `count` rows of `length` contiguous numbers, `stride` apart.
template <class T>
struct Rows {
  const T* data = nullptr;
  int64_t count = 0, length = 0, stride = 0;

  Rows() = default;
  Rows(const T* first, int64_t rows, int64_t columns) : Rows(first, rows, columns, columns) {}
  Rows(const T* first, int64_t rows, int64_t columns, int64_t apart)
      : data(first), count(rows), length(columns), stride(apart) {}
  const T* at(int64_t i) const { return data + i * stride; }
};

// What squared distances are made of: two sets of centred and scaled rows by their squared norms
// and the Gram matrix (x.count, y.count), and the rows x and y as they were given, which are in the
// same units times `scale`. For distances inside one set y is x. Pairs with a squared distance below
// far_square are near, whatever their norms: some other row is so far.
template <class T>
struct GramRows {
  Rows<T> x, y;
  T scale;
  const T *x_norms, *y_norms, *gram;
  T far_square = 0;
};

// What the angle kernel knows of each pair (row, anchor), interleaved so that one stream of memory
// serves a tile: kFields packs for each (block of anchors, row). See angle.h.
enum AngleField { kStudentInverse, kStudentHalf, kTeacherInverse, kTeacherHalf, kWeight, kFields };

// ---- rows.h: preparation -----------------------------------------------------------------------

// Adds the columns begin..end to sums (entries that are NaN or Inf count as 0) and returns the
// largest finite |entry| among them.
KDOPS_PER_ISA(template <class T> T column_sums(Rows<T> x, T* sums, int64_t begin, int64_t end);)

// out = (x - centre) * scale, rows out_stride apart, and the squared norms of its rows.
KDOPS_KERNEL(centre_rows, Rows<T> x, const T* centre, T scale, T* out, int64_t out_stride, T* norms)

// out (x.count, y.count) = unit * distance, or unit^2 * squared distance, for rows begin..end.
// True if some pair is so near (but not equal) that its direction needs more digits than T has.
KDOPS_PER_ISA(template <class T> bool distances(const GramRows<T>& g, bool squared, T unit, T* out,
                                                int64_t begin, int64_t end);)

// 1/d and d/2 into `data` at `field` and field + 1, for rows begin..end; lanes past the last anchor
// are zero. The student's call clears kWeight. Same result as distances().
KDOPS_PER_ISA(template <class T> bool angle_fields(const GramRows<T>& g, int field, T* data,
                                                   int64_t begin, int64_t end);)

// Blocks of anchors; how many groups of them sum their opposite sides apart, each in n^2 numbers
// (256 MB at most); numbers in the table of fields. By n alone, so that the order of every sum is
// fixed.
struct AngleShape {
  int64_t blocks, groups, table;
};
KDOPS_PER_ISA(template <class T> AngleShape angle_shape(int64_t n);)

// ---- product.h: matrix products ----------------------------------------------------------------

// A batch of products out (n, m) = a (n, d) b (d, m). Rows of b lie b_row apart, entry (i, k) of a
// is a[i * a_row + k * a_col]; *_step is the way from one product of the batch to the next.
template <class T>
struct Products {
  int64_t batch, n, m, d;
  const T* a;
  int64_t a_row, a_col, a_step;
  const T* b;
  int64_t b_row, b_step;
  T* out;
};

// An item is a strip of rows of one product; there are batch * product_strips(n). Wide strips read
// b less often, narrow ones keep more threads busy.
inline int64_t strip_rows(int64_t n) { return n >= 1024 ? 64 : n >= 512 ? 32 : 16; }
inline int64_t product_strips(int64_t n) { return (n + strip_rows(n) - 1) / strip_rows(n); }
KDOPS_ENTRY(multiply_strips, Products)

// The same for a product that is symmetric: half of it is computed and mirrored. An item is a strip
// from the top and one from the bottom, so that all are equal work; there are batch *
// symmetric_strips(n).
inline int64_t symmetric_strips(int64_t n) { return (product_strips(n) + 1) / 2; }
KDOPS_ENTRY(multiply_symmetric, Products)

// target (length, count) = xT, rows `stride` apart, for tile rows begin..end of x.
KDOPS_KERNEL(transpose_rows, Rows<T> x, T* target, int64_t stride)

// g = g + gT for n x n; by tile rows of the upper half.
KDOPS_KERNEL(add_transpose, T* g, int64_t n)
inline constexpr int64_t kTileSide = 16;
inline int64_t tile_rows(int64_t n) { return (n + kTileSide - 1) / kTileSide; }
// Numbers from row to row of a copy that a product reads: an odd number of cache lines. A column of
// rows a power of two apart would fall on few sets of the cache, and would have to be packed.
inline int64_t spread_stride(int64_t length) { return ((tile_rows(length) + 1) | 1) * kTileSide; }

// ---- losses ------------------------------------------------------------------------------------

// Sum over the anchors of blocks begin..end and all (j, k) of huber(cos_S - cos_T). With m (n, n),
// zero on entry, also the weights: the kWeight fields and m, see angle.h.
KDOPS_PER_ISA(template <class T>
              double angle_sweep(T* data, int64_t n, int64_t begin, int64_t end, T* m);)

// Rows begin..end of scale * (diag(V 1) - V) for the weights V of all unordered pairs; m holds
// `groups` matrices to be added up. `begin` is a multiple of kTileSide.
KDOPS_KERNEL(angle_laplacian, const T* data, int64_t n, const T* m, int64_t groups, T scale, T* out)

// Per row of d (n, n): sum of the distances and number of those that are not zero.
KDOPS_KERNEL(distance_sums, const T* d, int64_t n, double* sums, double* counts)

// Distances (n, n) of both sides, and one over their means.
template <class T>
struct DistancePair {
  T* student;
  const T* teacher;
  int64_t n;
  T inverse_mean_s, inverse_mean_t;
};

// Per row: sum of huber(p - q) and of h p, with p = student / mean, q = teacher / mean and h the
// Huber slope.
template <class T>
struct DistanceLosses {
  DistancePair<T> d;
  double *losses, *slopes;
};
KDOPS_ENTRY(distance_losses, DistanceLosses)

// Rows of diag(V 1) - V, V_ij = scale * (h_ij - shift) / student_ij, in the place of student; and
// lossy as from mark_lossy, `sizes` being the norms of the student's centred rows.
template <class T>
struct DistanceLaplacian {
  DistancePair<T> d;
  T shift, scale;
  const T* sizes;
  uint8_t* lossy;
};
KDOPS_ENTRY(distance_laplacian, DistanceLaplacian)

// out (x.count, x.length) holds what a product with w (x.count, y.count) made of centred rows. Its
// lossy rows become factor * sum_j w_ij (x_i - y_j) scale for the given rows x and y; then all are
// multiplied by `unit`.
template <class T>
struct Finish {
  const uint8_t* lossy;
  const T* w;
  Rows<T> x, y;
  T scale, factor, unit;
  T* out;
};
KDOPS_ENTRY(finish_rows, Finish)

// What similarity_weights must know of each row: with s and t the entries of student and teacher
// dL/dG_ij = factor_i (student_i s_ij - teacher_i t_ij).
template <class T>
struct SimilarityFactors {
  T *student, *teacher, *factor;
};

// Per row of two Gram matrices: the squared error of the rows divided by their norms; and the
// factors of scale * dL/dG.
KDOPS_KERNEL(similarity_rows, const T* student, const T* teacher, int64_t n, T scale,
             double* losses, SimilarityFactors<T> out)

// Rows of scale * (dL/dG + dL/dGT) in the place of student. Both matrices are symmetric, so that
// no entry of another row is needed.
KDOPS_KERNEL(similarity_weights, T* student, const T* teacher, int64_t n,
             SimilarityFactors<T> known)

// ---- pairwise ----------------------------------------------------------------------------------

// Rows divided by their norm, and 1/norm, by the rule of common/shared/unit_row.h.
KDOPS_KERNEL(unit_rows, Rows<T> x, T* out, T* inverse)

// grad = factor (grad - (grad . u) u) / |x| for unit rows u, in place.
KDOPS_KERNEL(unit_rows_backward, Rows<T> unit, const T* inverse, T* grad)

// Distances (n, m) in the units of the rows that a product reads: d * unit, or sqrt(d) * unit; and
// the norms of these rows.
template <class T>
struct PairLengths {
  const T* d;
  int64_t m;
  bool squared, itself;  // itself: y is x, and a row does not meet itself
  T unit;
  const T *x_sizes, *y_sizes;
};

// W (n, m) = grad / unit, or grad / (2 d unit) (0 where d = 0).
KDOPS_KERNEL(distance_weights, const PairLengths<T>& pairs, const T* grad, T* out)

// Rows of scale * (diag(V 1) - V) in place of V (n, n); the diagonal of V does not count.
KDOPS_KERNEL(laplacian, T* v, int64_t n, T scale)

// lossy[i] = whether row i of w times the rows cancels, see common/blas/differences.h.
KDOPS_KERNEL(mark_lossy, const PairLengths<T>& pairs, const T* w, uint8_t* lossy)

// product = 2 (s_i x_i - product_i), s_i the sum of row i of w (n, m).
KDOPS_KERNEL(combine_rows, const T* w, int64_t m, Rows<T> x, T* product)

// cos (i, j, k) for anchors begin..end from r = 1/d and a = d/2, both (n, n).
KDOPS_KERNEL(angles, const T* inverse, const T* half, int64_t n, T* out)

// dL/dD of the cosines for the cotangent grad (n, n, n): rows begin..end of w are written, and the
// part that opposite sides get is added to m (n, n).
KDOPS_KERNEL(angles_backward, const T* grad, const T* inverse, const T* half, int64_t n, T* w, T* m)

// ---- far.h: angles among rows so far apart that double loses the near ones -----------------------

// Of n rows, all (n, n): squared distances in two parts (long_square.h), and 1/d.
struct FarPairs {
  int64_t n;
  double *square, *rest, *inverse;
};
KDOPS_PER_ISA(void far_pairs(Rows<double> x, double scale, const FarPairs& out, int64_t begin,
                             int64_t end);)

// As angles and angles_backward.
KDOPS_PER_ISA(void far_angles(const FarPairs& pairs, double* out, int64_t begin, int64_t end);)
KDOPS_PER_ISA(void far_angles_backward(const double* grad, const FarPairs& pairs, double* w,
                                       double* m, int64_t begin, int64_t end);)

// As angle_sweep; with w and m the weights as angles_backward gives them for the slopes.
KDOPS_PER_ISA(double far_angle_loss(const FarPairs& student, const FarPairs& teacher, double* w,
                                    double* m, int64_t begin, int64_t end);)

}  // namespace kdops::relation
