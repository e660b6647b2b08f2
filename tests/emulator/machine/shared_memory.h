// A block's shared memory: bounds, bytes written, and who touched what since the last barrier.
#pragma once

#include <cstdint>
#include <vector>

#include "machine/program.h"
#include "memory/bounds.h"

namespace emulator {

// What one lane wants of shared memory.
struct SharedAccess {
  uint64_t offset;
  uint32_t bytes;
  uint16_t warp;
  uint8_t lane;
  uint32_t warp_interval;  // counts the warp's own barriers
};

class SharedMemory {
 public:
  void reset(uint32_t bytes);
  void next_interval() { ++interval_; }  // a barrier of the whole block
  bool holds(uint64_t offset, uint32_t bytes) const { return inside(offset, bytes, data_.size()); }
  uint8_t* at(uint64_t offset) { return data_.data() + offset; }
  uint8_t* written_flags(uint64_t offset) { return written_.data() + offset; }  // one a byte
  // Notes the access; the name of the race that it is part of, or null.
  const char* note_read(const SharedAccess& access);
  const char* note_write(const SharedAccess& access);

 private:
  // The last accesses of a place. A warp or lane that is "many" differs from every other.
  struct Trace {
    uint32_t write_interval = 0, read_interval = 0;
    uint32_t write_warp_interval = 0, read_warp_interval = 0;
    uint16_t writer_warp = 0, reader_warp = 0;
    uint8_t writer_lane = 0, reader_lane = 0;
  };
  const char* read_one(Trace& trace, const SharedAccess& access);
  const char* write_one(Trace& trace, const SharedAccess& access);
  template <class One>
  const char* note(const SharedAccess& access, One one);

  std::vector<uint8_t> data_, written_;
  // Accesses of whole words and those of bytes or halves are traced apart: kernels do not mix them
  // in one place, and words alone are a quarter of the work.
  std::vector<Trace> words_, bytes_;
  uint32_t interval_ = 0;
};

}  // namespace emulator
