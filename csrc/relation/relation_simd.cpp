// The relation kernels on raw pointers, compiled once per instruction set.
#include "relation/relation_simd.h"

#include "relation/angle.h"
#include "relation/far.h"
#include "relation/losses.h"
#include "relation/pairwise.h"
#include "relation/product.h"
#include "relation/rows.h"

namespace kdops::relation::KDOPS_ISA {

KDOPS_COMPILE_REAL(column_sums)
KDOPS_COMPILE_REAL(centre_rows)
KDOPS_COMPILE_REAL(distances)
KDOPS_COMPILE_REAL(angle_fields)
KDOPS_COMPILE_REAL(multiply_strips)
KDOPS_COMPILE_REAL(multiply_symmetric)
KDOPS_COMPILE_REAL(transpose_rows)
KDOPS_COMPILE_REAL(angle_shape)
KDOPS_COMPILE_REAL(angle_sweep)
KDOPS_COMPILE_REAL(angle_laplacian)
KDOPS_COMPILE_REAL(distance_sums)
KDOPS_COMPILE_REAL(distance_losses)
KDOPS_COMPILE_REAL(distance_laplacian)
KDOPS_COMPILE_REAL(finish_rows)
KDOPS_COMPILE_REAL(mark_lossy)
KDOPS_COMPILE_REAL(similarity_rows)
KDOPS_COMPILE_REAL(similarity_weights)
KDOPS_COMPILE_REAL(add_transpose)
KDOPS_COMPILE_REAL(unit_rows)
KDOPS_COMPILE_REAL(unit_rows_backward)
KDOPS_COMPILE_REAL(distance_weights)
KDOPS_COMPILE_REAL(laplacian)
KDOPS_COMPILE_REAL(combine_rows)
KDOPS_COMPILE_REAL(angles)
KDOPS_COMPILE_REAL(angles_backward)

}  // namespace kdops::relation::KDOPS_ISA
