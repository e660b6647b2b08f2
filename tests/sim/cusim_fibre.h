// Fibres for cusim.h: stacks that one thread switches between. A dozen instructions a switch on
// x86-64, ucontext elsewhere; AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace cusim {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr size_t kStack = 512 << 10;  // red zones around every variable
inline void poison(void* p, size_t n) { __asan_poison_memory_region(p, n); }
inline void unpoison(void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
inline constexpr size_t kStack = 128 << 10;  // touched pages only become real memory
inline void poison(void*, size_t) {}
inline void unpoison(void*, size_t) {}
#endif
inline constexpr uint64_t kStackCanary = 0x6b646f70736b646f;

#if defined(__x86_64__)
using Context = void*;  // the stack pointer; callee-saved registers lie on the stack
#if !defined(__clang__)
[[gnu::noipa]]  // or callers keep values in registers that the assembly does not mention
#endif
[[gnu::naked, gnu::noinline]] inline void switch_context(Context*, Context) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
#else
using Context = ucontext_t;
inline void switch_context(Context* from, Context& to) { swapcontext(from, &to); }
#endif

struct Fibre {
  Context context;
  std::unique_ptr<char[]> stack;
  void (*entry)();
  void* fake_stack;  // AddressSanitizer's
};
inline Context main_context;
inline Fibre* entered = nullptr;
inline const void* main_stack = nullptr;
inline size_t main_stack_size = 0;
inline void* main_fake_stack = nullptr;

// `keep` is where the running side stores its fake stack; null when it will never run again.
inline void announce_switch([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack,
                            [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(keep, stack, size);
#endif
}
inline void arrive([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** from,
                   [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, from, size);
#endif
}

inline void enter_fibre(Fibre& fibre) {
  entered = &fibre;
  announce_switch(&main_fake_stack, fibre.stack.get(), kStack);
  switch_context(&main_context, fibre.context);
  arrive(main_fake_stack, nullptr, nullptr);
}
inline void leave_fibre(Fibre& fibre) {
  announce_switch(&fibre.fake_stack, main_stack, main_stack_size);
  switch_context(&fibre.context, main_context);
  arrive(fibre.fake_stack, nullptr, nullptr);
}
inline void end_fibre(Fibre& fibre) {
  announce_switch(nullptr, main_stack, main_stack_size);
  switch_context(&fibre.context, main_context);
}

inline void fibre_start() {
  arrive(nullptr, &main_stack, &main_stack_size);
  entered->entry();
}

// Ready to be entered; the stack of an earlier use is taken over, whatever it was doing.
inline void begin_fibre(Fibre& fibre, void (*entry)()) {
  if (!fibre.stack) fibre.stack.reset(new char[kStack]);
  unpoison(fibre.stack.get(), kStack);
  fibre.entry = entry, fibre.fake_stack = nullptr;
  std::memcpy(fibre.stack.get(), &kStackCanary, sizeof kStackCanary);
#if defined(__x86_64__)
  // what switch_context pops: six registers and the address to return to; then a zero, where a
  // caller's return address would be: the stack is 16-byte aligned as after a call
  auto top = reinterpret_cast<uintptr_t>(fibre.stack.get() + kStack) & ~uintptr_t(63);
  auto* frame = reinterpret_cast<uintptr_t*>(top) - 8;
  std::memset(frame, 0, 8 * sizeof *frame);
  frame[6] = reinterpret_cast<uintptr_t>(&fibre_start);
  fibre.context = frame;
#else
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStack;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, fibre_start, 0);
#endif
}

inline bool overflowed(const Fibre& fibre) {
  return std::memcmp(fibre.stack.get(), &kStackCanary, sizeof kStackCanary) != 0;
}

}  // namespace cusim
