#include "machine/shared_memory.h"

namespace emulator {
namespace {

constexpr uint16_t kManyWarps = 0xffff;
constexpr uint8_t kManyLanes = 0xff;
constexpr uint32_t kWord = 4;

}  // namespace

// The traces stay: they belong to intervals that are over.
void SharedMemory::reset(uint32_t bytes) {
  data_.assign(bytes, 0xff);
  written_.assign(bytes, 0);
  if (words_.size() * kWord < bytes) words_.resize(bytes / kWord + 1);
  if (bytes_.size() < bytes) bytes_.resize(bytes);
  ++interval_;
}

const char* SharedMemory::read_one(Trace& t, const SharedAccess& a) {
  const char* race = nullptr;
  if (t.write_interval == interval_) {
    if (t.writer_warp != a.warp)
      race = "race: read after another warp's write";
    else if (t.write_warp_interval == a.warp_interval && t.writer_lane != a.lane)
      race = "race: read after another lane's write";
  }
  if (t.read_interval != interval_) {
    t.reader_warp = a.warp, t.reader_lane = a.lane;
  } else if (t.reader_warp != a.warp) {
    t.reader_warp = kManyWarps;
  } else if (t.read_warp_interval == a.warp_interval && t.reader_lane != a.lane) {
    t.reader_lane = kManyLanes;
  } else {
    t.reader_lane = a.lane;
  }
  t.read_interval = interval_, t.read_warp_interval = a.warp_interval;
  return race;
}

const char* SharedMemory::write_one(Trace& t, const SharedAccess& a) {
  const char* race = nullptr;
  const bool wrote = t.write_interval == interval_, read = t.read_interval == interval_;
  if (wrote && t.writer_warp != a.warp)
    race = "race: write after another warp's write";
  else if (read && t.reader_warp != a.warp)
    race = "race: write after another warp's read";
  else if (read && t.read_warp_interval == a.warp_interval && t.reader_lane != a.lane)
    race = "race: write after another lane's read";
  else if (wrote && t.write_warp_interval == a.warp_interval && t.writer_lane != a.lane)
    race = "race: write after another lane's write";
  t.write_interval = interval_, t.writer_warp = a.warp, t.writer_lane = a.lane;
  t.write_warp_interval = a.warp_interval;
  return race;
}

template <class One>
const char* SharedMemory::note(const SharedAccess& a, One one) {
  const bool whole = a.bytes >= kWord;
  Trace* trace = whole ? words_.data() + a.offset / kWord : bytes_.data() + a.offset;
  const uint32_t count = whole ? a.bytes / kWord : a.bytes;
  const char* race = nullptr;
  for (uint32_t k = 0; k < count; ++k) {
    const char* here = one(trace[k]);
    if (here != nullptr) race = here;
  }
  return race;
}

const char* SharedMemory::note_read(const SharedAccess& a) {
  return note(a, [&](Trace& t) { return read_one(t, a); });
}

const char* SharedMemory::note_write(const SharedAccess& a) {
  return note(a, [&](Trace& t) { return write_one(t, a); });
}

}  // namespace emulator
