// Loads, stores and atomics of a warp: every access is checked before it is done. What is not
// allowed becomes a finding; a refused load gives NaN, a refused store is left out.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "machine/block.h"
#include "machine/windows.h"

namespace emulator {
namespace {

constexpr uint32_t kMostBytes = 16;

struct Access {
  Warp& warp;
  const Instruction& in;
  uint32_t bytes;  // a lane's: a power of two
  uint64_t address[kLanes];
  uint8_t data[kLanes][kMostBytes];

  // data and addresses stay as they are: only active lanes are ever looked at
  Access(Warp& w, const Instruction& i) : warp(w), in(i), bytes(uint32_t{i.bytes} * i.count) {}
  void object(int lane, const char* what) const {
    char detail[96];
    std::snprintf(detail, sizeof detail, "%s of %u bytes at 0x%llx",
                  in.atomic  ? "atomic"
                  : in.store ? "store"
                             : "load",
                  bytes, static_cast<unsigned long long>(address[lane]));
    warp.block->object(warp, Mask{1} << lane, what, detail);
  }
  void refuse(int lane, const char* what) {
    object(lane, what);
    std::memset(data[lane], 0xff, bytes);
  }
  // Moves a lane's data; `written` has a flag for every byte there.
  void move(int lane, uint8_t* place, uint8_t* written) {
    if (in.store) {
      std::memcpy(place, data[lane], bytes);
      std::memset(written, 1, bytes);
      return;
    }
    if (!warp.block->launch().partial && std::memchr(written, 0, bytes) != nullptr)
      object(lane, "read of memory nobody wrote");
    if (in.atomic) {
      uint32_t old, sum, more;
      std::memcpy(&old, place, sizeof old);
      std::memcpy(&more, data[lane], sizeof more);
      sum = old + more;
      std::memcpy(place, &sum, sizeof sum);
      std::memcpy(data[lane], &old, sizeof old);
    } else {
      std::memcpy(data[lane], place, bytes);
    }
  }
};

void set_addresses(Access& a, Mask lanes) {
  const uint64_t offset = static_cast<uint64_t>(a.in.offset);
  if (a.in.from[0] == kNoSlot) {
    std::fill_n(a.address, kLanes, offset);
  } else if (a.in.wide_address) {
    const uint64_t* base = lanes_of<uint64_t>(a.warp, a.in.from[0]);
    for (int l = 0; l < kLanes; ++l) a.address[l] = base[l] + offset;
  } else {
    const uint32_t* base = lanes_of<uint32_t>(a.warp, a.in.from[0]);
    for (int l = 0; l < kLanes; ++l) a.address[l] = base[l] + offset;
  }
  each_lane(lanes, [&](int l) {
    if ((a.address[l] & (a.bytes - 1)) != 0) a.object(l, "misaligned access");
  });
}

void global_access(Access& a, Mask lanes) {
  if (BlockClock* clock = a.warp.block->clock())
    clock->touch_global(a.address, lanes, a.bytes, a.in.store);
  uint64_t first = ~uint64_t{0}, last = 0;
  each_lane(lanes, [&](int l) {
    first = std::min(first, a.address[l]), last = std::max(last, a.address[l]);
  });
  // all lanes in one array, mostly: it is looked for once
  const uint64_t together = last - first + a.bytes;
  const Allocation* all = &a.warp.block->allocation_of(first, together);
  const bool one = all->holds(first, together);
  each_lane(lanes, [&](int l) {
    const uint64_t at = a.address[l];
    const Allocation* here = one ? all : &a.warp.block->allocation_of(at, a.bytes);
    if (!here->holds(at, a.bytes)) {
      a.refuse(l, "global memory: out of bounds");
    } else {
      auto* place = static_cast<uint8_t*>(contents(reinterpret_cast<const void*>(at)));
      a.move(l, place, here->written.get() + (at - here->base));
    }
  });
}

void shared_access(Access& a, Mask lanes) {
  SharedMemory& shared = a.warp.block->shared();
  if (BlockClock* clock = a.warp.block->clock()) clock->touch_shared(a.address, lanes, a.bytes);
  each_lane(lanes, [&](int l) {
    const uint64_t at = a.address[l];
    if (!shared.holds(at, a.bytes)) return a.refuse(l, "shared memory: out of bounds");
    a.move(l, shared.at(at), shared.written_flags(at));
    if (a.in.atomic) return;  // these do not race among themselves
    const SharedAccess access = {at, a.bytes, a.warp.number, static_cast<uint8_t>(l),
                                 a.warp.interval};
    const char* race = a.in.store ? shared.note_write(access) : shared.note_read(access);
    if (race != nullptr) a.object(l, race);
  });
}

void local_access(Access& a, Mask lanes) {
  const uint64_t each = a.warp.block->launch().program->local_bytes;
  each_lane(lanes, [&](int l) {
    const uint64_t at = a.address[l];
    if (!inside(at, a.bytes, each)) return a.refuse(l, "local memory: out of bounds");
    const uint64_t place = each * static_cast<uint64_t>(l) + at;
    a.move(l, a.warp.local.data() + place, a.warp.local_written.data() + place);
  });
}

// Generic addresses: the lanes by where they point.
void generic_access(Access& a, Mask lanes) {
  Mask shared = 0, local = 0;
  each_lane(lanes, [&](int l) {
    shared |= Mask{in_window(a.address[l], kSharedWindow)} << l;
    local |= Mask{in_window(a.address[l], kLocalWindow)} << l;
  });
  each_lane(shared, [&](int l) { a.address[l] -= kSharedWindow; });
  each_lane(local, [&](int l) { a.address[l] -= kLocalWindow; });
  if (shared != 0) shared_access(a, shared);
  if (local != 0) local_access(a, local);
  if ((lanes & ~shared & ~local) != 0) global_access(a, lanes & ~shared & ~local);
}

uint64_t extended(uint64_t value, uint32_t bytes, bool is_signed) {
  if (!is_signed || bytes == 8) return value;
  const uint32_t unused = 64 - 8 * bytes;
  return static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
}

// Element `v` of a lane's data, from its register; an atomic's operand is its only element.
void from_registers(Access& a, Mask lanes) {
  const uint32_t size = a.in.bytes;
  for (uint32_t v = 0; v < a.in.count; ++v) {
    const uint32_t stride = a.in.wide_value[v] ? 8 : 4;  // little endian: the low bytes are first
    const uint8_t* from = a.warp.registers + a.in.values[v];
    each_lane(lanes, [&](int l) { std::memcpy(a.data[l] + v * size, from + stride * l, size); });
  }
}

void to_register(Warp& w, const Instruction& in, uint32_t v, int lane, const uint8_t* data) {
  uint64_t value = 0;
  std::memcpy(&value, data, in.bytes);
  value = extended(value, in.bytes, in.is_signed);
  if (in.wide_value[v])
    lanes_of<uint64_t>(w, in.values[v])[lane] = value;
  else
    lanes_of<uint32_t>(w, in.values[v])[lane] = static_cast<uint32_t>(value);
}

void to_registers(Access& a, Mask lanes) {
  if (a.in.atomic) {
    uint32_t* to = lanes_of<uint32_t>(a.warp, a.in.to);
    each_lane(lanes, [&](int l) { std::memcpy(&to[l], a.data[l], sizeof *to); });
    return;
  }
  for (uint32_t v = 0; v < a.in.count; ++v)
    each_lane(lanes, [&](int l) { to_register(a.warp, a.in, v, l, a.data[l] + v * a.in.bytes); });
}

}  // namespace

void access_memory(Warp& w, const Instruction& in, Mask lanes) {
  Access a(w, in);
  set_addresses(a, lanes);
  if (in.store || in.atomic) from_registers(a, lanes);
  switch (in.space) {
    case Space::global:
      global_access(a, lanes);
      break;
    case Space::shared:
      shared_access(a, lanes);
      break;
    case Space::local:
      local_access(a, lanes);
      break;
    case Space::generic:
      generic_access(a, lanes);
      break;
  }
  if (!in.store) to_registers(a, lanes);
}

void load_parameter(Warp& w, const Instruction& in, Mask lanes) {
  const std::vector<uint8_t>& parameters = w.block->launch().parameters;
  each_lane(lanes, [&](int l) {
    uint64_t at = static_cast<uint64_t>(in.offset);
    if (in.from[0] != kNoSlot) at += lanes_of<uint64_t>(w, in.from[0])[l];
    if (!inside(at, uint64_t{in.bytes} * in.count, parameters.size())) {
      w.block->object(w, Mask{1} << l, "kernel parameters: out of bounds");
      return;
    }
    for (uint32_t v = 0; v < in.count; ++v)
      to_register(w, in, v, l, parameters.data() + at + v * in.bytes);
  });
}

}  // namespace emulator
