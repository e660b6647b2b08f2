// Scratch<T>: aligned, uninitialised work memory that frees itself. Kernels take one per range.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace kdops {

// Empty for a count of zero: get() is then null. The alignment is made here: the allocators'
// aligned functions cut a block out of a larger one and free the rest, several times the cost of
// malloc, which shows in a call on few matrices.
template <class T>
class Scratch {
 public:
  static constexpr uintptr_t kAlignment = 64;

  explicit Scratch(int64_t count) {
    if (count <= 0) return;
    block_ = std::malloc(static_cast<size_t>(count) * sizeof(T) + kAlignment - 1);
    if (block_ == nullptr) throw std::bad_alloc();
    const uintptr_t first = reinterpret_cast<uintptr_t>(block_) + kAlignment - 1;
    data_ = reinterpret_cast<T*>(first / kAlignment * kAlignment);
  }
  ~Scratch() { std::free(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  void* block_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace kdops
