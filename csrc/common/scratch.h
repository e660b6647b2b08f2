// Scratch<T>: aligned, uninitialised work memory that frees itself. Kernels take one per range.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace kdops {

template <class T>
class Scratch {
 public:
  static constexpr size_t kAlignment = 64;

  explicit Scratch(int64_t count) {
    const size_t bytes = static_cast<size_t>(count > 0 ? count : 1) * sizeof(T);
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<T*>(std::aligned_alloc(kAlignment, rounded));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

}  // namespace kdops
