// What nvcc puts into an object for one source: PTX, and machine code for the architectures asked for.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace emulator {

struct FatBinary {
  std::string ptx;
  int ptx_capability = 0;         // 90 for compute_90, 0 without PTX
  std::vector<int> machine_code;  // capabilities
  // of the machine code, by the name of the kernel: registers and bytes of stack a thread, instructions
  std::map<std::string, int> registers, stack, code;
  bool runs_on(int capability) const;
};

FatBinary read_fat_binary(const void* wrapper);

}  // namespace emulator
