// Parallel loops over independent items on torch's own thread pool. A second OpenMP runtime would
// fight with it for the cores. The order of work never changes a result: a range writes only its
// own items, and sums over items are taken afterwards in a fixed order.
#pragma once

#include <cstdint>
#include <vector>

namespace kdops {

// range(body, begin, end) for disjoint ranges that cover 0..items. One that gets no work memory ends
// the call with an error that says so; torch's own pool would report a failed call and nothing else.
void run_ranges(int64_t items, double flops_per_item,
                void (*range)(const void* body, int64_t begin, int64_t end), const void* body);

// body(begin, end) likewise.
template <class Body>
void parallel_for(int64_t items, double flops_per_item, const Body& body) {
  const auto range = [](const void* any, int64_t begin, int64_t end) {
    (*static_cast<const Body*>(any))(begin, end);
  };
  run_ranges(items, flops_per_item, range, &body);
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
