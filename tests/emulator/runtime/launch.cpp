#include "runtime/launch.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "cost/record.h"

namespace emulator {
namespace {

struct Outcome {
  Findings findings;
  uint64_t instructions = 0;
  std::vector<BlockCost> costs;  // of a launch that is timed
};

// Blocks are handed out one by one; the order does not matter, since blocks do not talk.
Outcome run_blocks(const Launch& launch, uint64_t count, unsigned host_threads) {
  std::vector<BlockCost> costs(launch.timed ? count : 0);
  const auto workers = static_cast<size_t>(std::min<uint64_t>(host_threads, count));
  std::atomic<uint64_t> next{0};
  std::vector<Outcome> outcomes(workers);
  const auto work = [&](size_t worker) {
    Block block(launch);
    // what was found once is found again: the first block with findings is the worker's last
    for (uint64_t i = next++; i < count && block.findings.empty(); i = next++) {
      block.run(i);
      if (block.clock() != nullptr) costs[i] = block.clock()->cost();
    }
    outcomes[worker] = {std::move(block.findings), block.instructions, {}};
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < workers; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& t : others) t.join();
  for (size_t i = 1; i < workers; ++i) {
    outcomes[0].findings.merge(outcomes[i].findings);
    outcomes[0].instructions += outcomes[i].instructions;
  }
  outcomes[0].costs = std::move(costs);
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

LaunchCost cost_of_launch(const Kernel& kernel, const Launch& launch, Outcome&& outcome) {
  const FatBinary& binary = kernel.image->binary;
  const auto known = [&](const std::map<std::string, int>& of) {
    const auto it = of.find(kernel.name);
    return it == of.end() ? 0 : it->second;
  };
  return {kernel.name,
          launch.block_count(),
          launch.thread_count(),
          launch.program->static_shared + launch.dynamic_shared,
          launch.program->local_bytes,
          {kernel.limits.registers, known(binary.stack), known(binary.code)},
          std::move(outcome.costs)};
}

Refusal run(Kernel& kernel, const Geometry& geometry, void** arguments) {
  const DeviceModel& device = DeviceModel::current();
  if (!kernel.image->binary.runs_on(device.capability))
    return {cudaErrorNoKernelImageForDevice,
            "no kernel image is available for execution on the device"};
  const Program& program = program_of(kernel);
  Launch launch = prepared(program, geometry, arguments);
  if (Refusal r = check_limits(launch, kernel.limits, device); r.code != cudaSuccess) return r;
  Recorder& record = recorder();
  uint64_t blocks = launch.block_count();
  launch.timed = record.on, launch.cold = record.launches.empty();
  launch.partial = record.on && record.most_blocks > 0;
  if (launch.partial) blocks = std::min(blocks, record.most_blocks);
  Outcome outcome = run_blocks(launch, blocks, device.host_threads);
  ++totals().launches;
  totals().warp_instructions += outcome.instructions;
  if (record.on) record.launches.push_back(cost_of_launch(kernel, launch, std::move(outcome)));
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
