// Parallel loops over independent items on torch's own thread pool. A second OpenMP runtime would
// fight with it for the cores. The order of work never changes a result: a range writes only its
// own items, and sums over items are taken afterwards in a fixed order.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

namespace kdops {

// About 20 microseconds of work on one core: below that a second thread costs more than it brings.
inline constexpr double kFlopsWorthAThread = 400e3;

// body(begin, end) for disjoint ranges that cover 0..items.
template <class Body>
void parallel_for(int64_t items, double flops_per_item, const Body& body) {
  if (items <= 0) return;
  const double grain = kFlopsWorthAThread / std::max(flops_per_item, 1.0);
  const int64_t grain_items = std::max<int64_t>(1, static_cast<int64_t>(std::min(grain, 1e9)));
  if (items <= grain_items) return body(0, items);
  torch::stable::parallel_for(0, items, grain_items, body);
}

// The sum of the items' values, in their order.
template <class T>
double ordered_sum(const T* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  return sum;
}

}  // namespace kdops
