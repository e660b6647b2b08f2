// Where the expanded form of a difference of rows has lost too many digits. One answer for every
// room, number type, host and device (kdops/_triton.py repeats it for Triton).
#pragma once

namespace kdops {

// |x|^2 + |y|^2 - 2 <x, y> below this part of |x|^2 + |y|^2 has lost five bits: the squared
// distance is taken again from differences.
inline constexpr double kClosePart = 1.0 / 32;

// The cosines at a pair, which come from distances, lose too many digits where its squared distance
// is below kNearPart of |x|^2 + |y|^2, or below kFarPart of the longest |z|^2 of all rows: a hundred
// units of float, which are computed in double then, or ten thousand of double, for which squared
// distances have twice the digits (relation/long_square.h).
template <class T>
inline constexpr T kNearPart = sizeof(T) == 4 ? T(1e-2) : T(1e-8);
template <class T>
inline constexpr T kFarPart = sizeof(T) == 4 ? T(1e-4) : T(1e-8);

// sum_j w_j (x - y_j) = x sum_j w_j - sum_j w_j y_j has lost three bits more than its terms where
// sum_j |w_j| (|x| + |y_j|) is above this many sum_j |w_j| |x - y_j|: it is summed again from
// differences.
inline constexpr double kLossyFactor = 8;

}  // namespace kdops
