#include "runtime/device_model.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <thread>

namespace emulator {
namespace {

constexpr uint64_t kMostThreads = 1024, kRegisters = 65536;  // of a block
constexpr uint32_t kMostThreadsZ = 64, kMostBlocksX = 0x7fffffff, kMostBlocksYZ = 65535;

int64_t from_environment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::atoll(text) : otherwise;
}

unsigned threads_of_host() {
  const unsigned all = std::max(1u, std::thread::hardware_concurrency());
  const int64_t openmp = from_environment("OMP_NUM_THREADS", all);
  return static_cast<unsigned>(
      std::max<int64_t>(1, from_environment("KDOPS_EMULATOR_THREADS", openmp)));
}

Refusal invalid(const std::string& why) {
  return {cudaErrorInvalidValue, "invalid argument: " + why};
}

Refusal check_geometry(const Launch& l) {
  const uint64_t threads = uint64_t{l.threads[0]} * l.threads[1] * l.threads[2];
  const auto refused = [](const std::string& why) {
    return Refusal{cudaErrorInvalidConfiguration, "invalid configuration argument: " + why};
  };
  if (l.block_count() == 0 || threads == 0) return refused("an empty grid or block");
  if (threads > kMostThreads || l.threads[2] > kMostThreadsZ)
    return refused(std::to_string(threads) + " threads in a block");
  if (l.blocks[0] > kMostBlocksX || l.blocks[1] > kMostBlocksYZ || l.blocks[2] > kMostBlocksYZ)
    return refused("a grid of " + std::to_string(l.blocks[0]) + " x " +
                   std::to_string(l.blocks[1]) + " x " + std::to_string(l.blocks[2]) + " blocks");
  if (threads > l.program->max_threads)
    return refused(std::to_string(threads) + " threads, __launch_bounds__ says " +
                   std::to_string(l.program->max_threads));
  return {cudaSuccess, ""};
}

Refusal check_shared(const Launch& l, const KernelLimits& kernel, const DeviceModel& device) {
  const int64_t fixed = l.program->static_shared, dynamic = l.dynamic_shared;
  const int64_t asked = kernel.dynamic_asked >= 0 ? kernel.dynamic_asked : kSharedUnasked - fixed;
  if (dynamic > asked)
    return invalid(std::to_string(dynamic) + " bytes of dynamic shared memory, allowed are " +
                   std::to_string(asked));
  if (fixed + dynamic > device.shared_optin)
    return invalid(std::to_string(fixed + dynamic) + " bytes of shared memory, the device has " +
                   std::to_string(device.shared_optin));
  return {cudaSuccess, ""};
}

Refusal check_registers(const Launch& l, const KernelLimits& kernel) {
  const uint64_t each = (static_cast<uint64_t>(kernel.registers) + 7) / 8 * 8;
  const uint64_t lanes = (uint64_t{l.thread_count()} + kLanes - 1) / kLanes * kLanes;
  if (each * lanes <= kRegisters) return {cudaSuccess, ""};
  return {cudaErrorLaunchOutOfResources,
          "too many resources requested for launch: " + std::to_string(each) +
              " registers a thread, " + std::to_string(lanes) + " threads"};
}

}  // namespace

DeviceModel& DeviceModel::current() {
  static DeviceModel one = {
      static_cast<int>(from_environment("KDOPS_EMULATOR_CAPABILITY", 90)),
      static_cast<int>(from_environment("KDOPS_EMULATOR_MULTIPROCESSORS", 132)),
      static_cast<int>(from_environment("KDOPS_EMULATOR_SHARED_KIB", 227) << 10),
      threads_of_host(),
      uint64_t{1} << 31,
  };
  return one;
}

Refusal check_limits(const Launch& l, const KernelLimits& kernel, const DeviceModel& device) {
  if (Refusal r = check_geometry(l); r.code != cudaSuccess) return r;
  if (Refusal r = check_shared(l, kernel, device); r.code != cudaSuccess) return r;
  return check_registers(l, kernel);
}

}  // namespace emulator
