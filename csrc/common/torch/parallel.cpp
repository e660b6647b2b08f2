#include "common/torch/parallel.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <new>

namespace kdops {
namespace {

// About 20 microseconds of work on one core: below that a second thread costs more than it brings.
constexpr double kFlopsWorthAThread = 400e3;

}  // namespace

void run_ranges(int64_t items, double flops_per_item,
                void (*range)(const void* body, int64_t begin, int64_t end), const void* body) {
  if (items <= 0) return;
  const double grain = kFlopsWorthAThread / std::max(flops_per_item, 1.0);
  const int64_t grain_items = std::max<int64_t>(1, static_cast<int64_t>(std::min(grain, 1e9)));
  std::atomic<bool> exhausted{false};
  const auto guarded = [&](int64_t begin, int64_t end) {
    try {
      range(body, begin, end);
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

}  // namespace kdops
