// What follows a product of weights with centred rows, on the CPU: lossy rows again from
// differences, and the part of the scale that the weights could not take.
#pragma once

#include <algorithm>
#include <cmath>

#include "relation/prepare.h"

namespace kdops::relation {

// Completes `out`, what products with w made of centred rows (see Finish). Cheap where no row of it
// is lossy and the unit is one.
template <class T>
void finish(const Finish<T>& rows) {
  const uint8_t* end = rows.lossy + rows.x.count;
  const int64_t lossy = std::count_if(rows.lossy, end, [](uint8_t mark) { return mark != 0; });
  if (lossy == 0 && rows.unit == T(1)) return;
  const double share = static_cast<double>(lossy) / static_cast<double>(rows.x.count);
  const double flops = static_cast<double>(rows.x.length) * (1 + 4 * share * rows.y.count);
  parallel_for(rows.x.count, flops, KDOPS_BEST(finish_rows<T>), rows);
}

// A scale in two factors: what the weights of a product can take without leaving their range, and
// the rest for `finish`.
template <class T>
struct SplitScale {
  T inside, after;
  explicit SplitScale(T scale) {
    const T most = std::ldexp(T(1), sizeof(T) == 4 ? 60 : 500);
    inside = std::min(scale, most);  // a power of two, as is the scale
    after = scale / inside;
  }
};

template <class T>
void multiply_by(T factor, const Tensor& grad) {
  if (factor == T(1)) return;
  T* values = pointer<T>(grad);
  parallel_for(grad.size(0), 2.0 * grad.size(1), [&](int64_t begin, int64_t end) {
    for (int64_t e = begin * grad.size(1); e < end * grad.size(1); ++e) values[e] *= factor;
  });
}

}  // namespace kdops::relation
