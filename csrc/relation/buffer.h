// Buffer<T>: work memory of a call, kept by its thread for the next one. A training step asks for
// the same megabytes each time; given back to the system, they would come back page by page, each
// by a fault (1800 of them, a fifth of the call, for 512 rows of 512). Callers: the relation glue.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace kdops {

struct Block {
  void* data;
  size_t bytes;
};

// What one thread keeps: the blocks given back last, kMostBytes in all.
class KeptBlocks {
 public:
  static constexpr size_t kMostBytes = size_t(16) << 20, kAlignment = 64;

  static KeptBlocks& of_this_thread() {
    thread_local KeptBlocks kept;
    return kept;
  }
  KeptBlocks() = default;
  KeptBlocks(const KeptBlocks&) = delete;
  KeptBlocks& operator=(const KeptBlocks&) = delete;
  ~KeptBlocks() {
    for (const Block& block : blocks_) std::free(block.data);
  }

  // The smallest that fits and is not twice too large, else a new one.
  Block take(size_t bytes) {
    size_t best = blocks_.size();
    for (size_t i = 0; i < blocks_.size(); ++i)
      if (blocks_[i].bytes >= bytes && blocks_[i].bytes / 2 <= bytes &&
          (best == blocks_.size() || blocks_[i].bytes < blocks_[best].bytes))
        best = i;
    if (best < blocks_.size()) return remove(best);
    const size_t rounded = (bytes / kAlignment + 1) * kAlignment;
    void* data = std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr) throw std::bad_alloc();
    return {data, rounded};
  }
  void give(Block block) {
    blocks_.push_back(block);
    bytes_ += block.bytes;
    while (bytes_ > kMostBytes) std::free(remove(0).data);
  }

 private:
  Block remove(size_t i) {
    const Block block = blocks_[i];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(i));
    bytes_ -= block.bytes;
    return block;
  }

  std::vector<Block> blocks_;
  size_t bytes_ = 0;
};

// Uninitialised; made and destroyed on one thread, used on any.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : block_(KeptBlocks::of_this_thread().take(static_cast<size_t>(count) * sizeof(T))) {}
  ~Buffer() { KeptBlocks::of_this_thread().give(block_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return static_cast<T*>(block_.data); }

 private:
  Block block_;
};

}  // namespace kdops
