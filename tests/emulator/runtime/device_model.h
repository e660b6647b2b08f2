// What the emulated device allows, and what the runtime says where a launch asks for more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "machine/block.h"

namespace emulator {

// As it starts: an H200, or what the environment says (README.md).
struct DeviceModel {
  int capability;  // 90 for 9.0
  int multiprocessors;
  int shared_optin;  // bytes of shared memory of one block that asked for them
  unsigned host_threads;
  uint64_t budget;  // warp instructions of one block

  static DeviceModel& current();
};

constexpr int kSharedUnasked = 48 << 10;  // what a block may have without cudaFuncSetAttribute

// What the compiler and the host program said of a kernel.
struct KernelLimits {
  int registers = 0;       // a thread
  int dynamic_asked = -1;  // of cudaFuncSetAttribute, -1 if it was not called
};

struct Refusal {
  int code;  // a cudaError_t, 0 if the launch may run
  std::string text;
};

Refusal check_limits(const Launch& launch, const KernelLimits& kernel, const DeviceModel& device);

}  // namespace emulator
