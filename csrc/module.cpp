// What the library says of itself. kdops/_library.py loads the file with torch's loader and reads
// this string through ctypes, so that no Python header is needed to build and one binary serves
// every Python. Ops register themselves in their own rooms (STABLE_TORCH_LIBRARY_FRAGMENT).
#include <string>

#include "common/simd/isa.h"

extern "C" __attribute__((visibility("default"))) const char* kdops_build_info() {
  static const std::string info =
      std::string("{\"kdops\": \"" KDOPS_INFO_VERSION "\", \"instruction_sets\": \"" KDOPS_INFO_ISAS
                  "\", \"cuda\": \"" KDOPS_INFO_CUDA "\", \"cuda_archs\": \"" KDOPS_INFO_ARCHS
                  "\", \"cuda_ptx\": \"" KDOPS_INFO_PTX "\", \"compiler\": \"" KDOPS_INFO_COMPILER
                  "\", \"torch_target\": \"2.10\", \"active_instruction_set\": \"") +
      kdops::isa_name(kdops::active_isa()) + "\"}";
  return info.c_str();
}
