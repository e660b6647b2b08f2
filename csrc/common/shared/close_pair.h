// Where the expanded form of a difference of rows has lost too many digits. One answer for every
// room, number type, host and device (kdops/_triton.py repeats it for Triton).
#pragma once

namespace kdops {

// |x|^2 + |y|^2 - 2 <x, y> below this part of |x|^2 + |y|^2 has lost five bits: the squared
// distance is taken again from differences.
inline constexpr double kClosePart = 1.0 / 32;

// The cosines at a pair, which come from distances, lose a hundred units of float where its squared
// distance is below this part of |x|^2 + |y|^2: they are computed in double.
inline constexpr double kNearPart = 1e-2;

// sum_j w_j (x - y_j) = x sum_j w_j - sum_j w_j y_j has lost three bits more than its terms where
// sum_j |w_j| (|x| + |y_j|) is above this many sum_j |w_j| |x - y_j|: it is summed again from
// differences.
inline constexpr double kLossyFactor = 8;

}  // namespace kdops
