#include "memory/host_fault.h"

#include <signal.h>
#include <unistd.h>

namespace emulator {
namespace {

const std::byte* arena_start;
size_t arena_bytes;
struct sigaction previous;

// Only what a signal handler may call. Then the instruction faults again, into the handler that
// was there before (pytest's prints the Python stack).
void explain(int, siginfo_t* info, void*) {
  const auto* at = static_cast<std::byte*>(info->si_addr);
  if (at >= arena_start && at < arena_start + arena_bytes) {
    static const char text[] = "emulator: host code reads or writes device memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, text, sizeof text - 1);
  }
  sigaction(SIGSEGV, &previous, nullptr);
}

}  // namespace

void explain_faults_in(const std::byte* start, size_t bytes) {
  arena_start = start, arena_bytes = bytes;
  struct sigaction ours = {};
  ours.sa_sigaction = explain;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &ours, &previous);
}

}  // namespace emulator
