// Parallel loops over independent items on torch's own thread pool. A second OpenMP runtime would
// fight with it for the cores. The order of work never changes a result: a range writes only its
// own items, and sums over items are taken afterwards in a fixed order.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <vector>

namespace kdops {

// About 20 microseconds of work on one core: below that a second thread costs more than it brings.
inline constexpr double kFlopsWorthAThread = 400e3;

// body(begin, end) for disjoint ranges that cover 0..items. A range that gets no work memory ends the
// call with an error that says so; torch's own pool would report a failed call and nothing else.
template <class Body>
void parallel_for(int64_t items, double flops_per_item, const Body& body) {
  if (items <= 0) return;
  const double grain = kFlopsWorthAThread / std::max(flops_per_item, 1.0);
  const int64_t grain_items = std::max<int64_t>(1, static_cast<int64_t>(std::min(grain, 1e9)));
  std::atomic<bool> exhausted{false};
  const auto guarded = [&](int64_t begin, int64_t end) {
    try {
      body(begin, end);
    } catch (const std::bad_alloc&) {
      exhausted = true;
    }
  };
  if (items <= grain_items)
    guarded(0, items);
  else
    torch::stable::parallel_for(0, items, grain_items, guarded);
  STD_TORCH_CHECK(!exhausted, "kdops: out of memory: a kernel could not get its work memory");
}

// The same for a kernel, KDOPS_BEST(name<T>), which takes its range behind its other arguments.
template <class Kernel, class... Arguments>
void parallel_for(int64_t items, double flops_per_item, Kernel* kernel,
                  const Arguments&... arguments) {
  parallel_for(items, flops_per_item,
               [&](int64_t begin, int64_t end) { kernel(arguments..., begin, end); });
}

// The sum of the items' values, in their order.
template <class T>
double ordered_sum(const T* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  return sum;
}
inline double ordered_sum(const std::vector<double>& values) {
  return ordered_sum(values.data(), static_cast<int64_t>(values.size()));
}

}  // namespace kdops
