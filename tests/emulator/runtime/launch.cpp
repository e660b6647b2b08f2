#include "runtime/launch.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

namespace emulator {
namespace {

struct Outcome {
  Findings findings;
  uint64_t instructions = 0;
};

// Blocks are handed out one by one; the order does not matter, since blocks do not talk.
Outcome run_blocks(const Launch& launch, unsigned host_threads) {
  const uint64_t count = launch.block_count();
  const auto workers = static_cast<size_t>(std::min<uint64_t>(host_threads, count));
  std::atomic<uint64_t> next{0};
  std::vector<Outcome> outcomes(workers);
  const auto work = [&](size_t worker) {
    Block block(launch);
    // what was found once is found again: the first block with findings is the worker's last
    for (uint64_t i = next++; i < count && block.findings.empty(); i = next++) block.run(i);
    outcomes[worker] = {std::move(block.findings), block.instructions};
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < workers; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& t : others) t.join();
  for (size_t i = 1; i < workers; ++i) {
    outcomes[0].findings.merge(outcomes[i].findings);
    outcomes[0].instructions += outcomes[i].instructions;
  }
  return std::move(outcomes[0]);
}

Launch prepared(const Program& program, const Geometry& g, void** arguments) {
  Launch l;
  l.program = &program;
  std::copy_n(g.blocks, 3, l.blocks);
  std::copy_n(g.threads, 3, l.threads);
  l.dynamic_shared = static_cast<uint32_t>(g.dynamic_shared);
  l.budget = DeviceModel::current().budget;
  l.parameters.assign(program.parameter_bytes, 0);
  for (size_t i = 0; i < program.parameters.size(); ++i) {
    const Parameter& p = program.parameters[i];
    std::memcpy(l.parameters.data() + p.offset, arguments[i], p.bytes);
  }
  return l;
}

Refusal run(Kernel& kernel, const Geometry& geometry, void** arguments) {
  const DeviceModel& device = DeviceModel::current();
  if (!kernel.image->binary.runs_on(device.capability))
    return {cudaErrorNoKernelImageForDevice,
            "no kernel image is available for execution on the device"};
  const Program& program = program_of(kernel);
  const Launch launch = prepared(program, geometry, arguments);
  if (Refusal r = check_limits(launch, kernel.limits, device); r.code != cudaSuccess) return r;
  const Outcome outcome = run_blocks(launch, device.host_threads);
  ++totals().launches;
  totals().warp_instructions += outcome.instructions;
  if (outcome.findings.empty()) return {cudaSuccess, ""};
  return {cudaErrorIllegalAddress, outcome.findings.text(program)};
}

}  // namespace

// Never destroyed: objects of the process unregister theirs at its end.
std::map<const void*, Kernel>& kernels() {
  static auto* all = new std::map<const void*, Kernel>;
  return *all;
}

std::recursive_mutex& runtime_lock() {
  static std::recursive_mutex one;
  return one;
}

Totals& totals() {
  static Totals one;
  return one;
}

const Program& program_of(Kernel& kernel) {
  Image& image = *kernel.image;
  if (image.module == nullptr) image.module = std::make_unique<Module>(image.binary.ptx);
  return image.module->program(kernel.name);
}

Refusal launch(Kernel& kernel, const Geometry& geometry, void** arguments) {
  const std::lock_guard lock(runtime_lock());
  Refusal r;
  try {
    r = run(kernel, geometry, arguments);
  } catch (const std::exception& error) {
    r = {cudaErrorInvalidPtx, error.what()};
  }
  if (r.code != cudaSuccess) {
    r.text = "emulator: " + kernel.name + ": " + r.text;
    totals().objections.push_back(r.text);
  }
  return r;
}

}  // namespace emulator
