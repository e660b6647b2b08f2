// What the tests ask of the emulator, by ctypes (tests/emulator/library.py).
#include <cstring>

#include "cost/record.h"
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
void emulator_set_threads(unsigned host_threads) {
  DeviceModel::current().host_threads = host_threads;
}
// From here on launches are timed; of each at most so many blocks are run, 0: all of them.
void emulator_start_recording(uint64_t most_blocks) { recorder() = {true, most_blocks, {}}; }
// What they have cost, as JSON, and the end of it.
const char* emulator_stop_recording() {
  kept = as_json(recorder().launches);
  recorder() = {};
  return kept.c_str();
}
void* emulator_allocate(size_t bytes) { return allocate(bytes); }
void emulator_release(void* base) { release(base); }
void emulator_write(void* device, const void* host, size_t bytes) {
  std::memcpy(contents(device), host, bytes);
  mark_written(device);
}
void emulator_read(void* host, const void* device, size_t bytes) {
  std::memcpy(host, contents(device), bytes);
}
uint64_t emulator_memory_live() { return memory_use().live; }
uint64_t emulator_memory_peak() { return memory_use().peak; }
void emulator_reset_peak() { reset_peak(); }

}  // extern "C"
