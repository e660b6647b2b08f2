// The kernels of the process, and a launch of one of them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ptx/module.h"
#include "runtime/device_model.h"
#include "runtime/fat_binary.h"

namespace emulator {

struct Image {
  FatBinary binary;
  std::unique_ptr<Module> module;  // made when a kernel is first asked for
};

struct Kernel {
  std::string name;
  Image* image;
  KernelLimits limits;
};

struct Geometry {
  uint32_t blocks[3], threads[3];
  size_t dynamic_shared;
};

// What the process has run, for the tests. `objections` is what the machine or a limit refused.
struct Totals {
  uint64_t launches = 0, warp_instructions = 0;
  std::vector<std::string> objections;
};

// By the address of the function on the host.
std::map<const void*, Kernel>& kernels();
std::recursive_mutex& runtime_lock();
Totals& totals();
const Program& program_of(Kernel& kernel);  // PtxError
// Runs all blocks; what came of it as a cudaError_t and a text. `arguments` as of cudaLaunchKernel.
Refusal launch(Kernel& kernel, const Geometry& geometry, void** arguments);

}  // namespace emulator
