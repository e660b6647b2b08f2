// What the tests ask of the emulator, by ctypes (tests/emulator/library.py).
#include <algorithm>

#include "memory/arena.h"
#include "runtime/launch.h"

namespace {

using namespace emulator;

std::string kept;  // what the last text that was given out points to

}  // namespace

extern "C" {

// What was refused since the last call, one a line.
const char* emulator_objections() {
  const std::lock_guard lock(runtime_lock());
  kept.clear();
  for (const std::string& o : totals().objections) kept += o + "\n";
  totals().objections.clear();
  return kept.c_str();
}
uint64_t emulator_launches() { return totals().launches; }
uint64_t emulator_warp_instructions() { return totals().warp_instructions; }
// Translates every kernel; those that cannot be, one a line.
const char* emulator_translate_all(uint64_t* count) {
  const std::lock_guard lock(runtime_lock());
  kept.clear();
  *count = kernels().size();
  for (auto& [host, kernel] : kernels()) {
    try {
      program_of(kernel);
    } catch (const std::exception& error) {
      kept += kernel.name + ": " + error.what() + "\n";
    }
  }
  return kept.c_str();
}
void emulator_set_device(int capability, int multiprocessors, int shared_optin) {
  DeviceModel& device = DeviceModel::current();
  device.capability = capability, device.multiprocessors = multiprocessors;
  device.shared_optin = shared_optin;
}
void emulator_set_budget(uint64_t warp_instructions) {
  DeviceModel::current().budget = warp_instructions;
}
void* emulator_allocate(size_t bytes) { return allocate(bytes); }
void emulator_release(void* base) { release(base); }
void emulator_copy(void* to, const void* from, size_t bytes) {
  const HostAccess access;
  std::copy_n(static_cast<const uint8_t*>(from), bytes, static_cast<uint8_t*>(to));
}
void emulator_mark_written(void* base) { mark_written(base); }
uint64_t emulator_memory_live() { return memory_use().live; }
uint64_t emulator_memory_peak() { return memory_use().peak; }
void emulator_reset_peak() { reset_peak(); }

}  // extern "C"
