// Shuffles and votes. The scheduler has made sure that the lanes that they name are here.
#include <algorithm>

#include "machine/block.h"

namespace emulator {
namespace {

// Where lane `lane` reads, and whether that is inside its segment: PTX, shfl.sync.
struct Source {
  int lane;
  bool inside;
};

Source source_of(Shuffle how, int lane, uint32_t by, uint32_t bounds) {
  const int clamp = static_cast<int>(bounds & 31), segment = static_cast<int>(bounds >> 8 & 31);
  const int first = lane & segment, last = first | (clamp & ~segment);
  const int distance = static_cast<int>(by & 31);
  switch (how) {
    case Shuffle::index: {
      const int from = first | (distance & ~segment);
      return {from, from <= last};
    }
    case Shuffle::butterfly:
      return {lane ^ distance, (lane ^ distance) <= last};
    case Shuffle::up:
      return {lane - distance, lane - distance >= last};
    case Shuffle::down:
      return {lane + distance, lane + distance <= last};
  }
  return {lane, false};
}

}  // namespace

void shuffle(Warp& w, const Instruction& in, Mask lanes) {
  uint32_t values[kLanes];
  std::copy_n(lanes_of<uint32_t>(w, in.from[0]), kLanes, values);  // `to` may be the same register
  const uint32_t* by = lanes_of<uint32_t>(w, in.from[1]);
  const uint32_t* bounds = lanes_of<uint32_t>(w, in.from[2]);
  const uint32_t* members = lanes_of<uint32_t>(w, in.members);
  uint32_t* to = lanes_of<uint32_t>(w, in.to);
  uint32_t* inside = in.second_to == kNoSlot ? nullptr : lanes_of<uint32_t>(w, in.second_to);
  each_lane(lanes, [&](int l) {
    Source s = source_of(in.shuffle, l, by[l], bounds[l]);
    if (!s.inside) s.lane = l;
    if ((lanes >> s.lane & 1) == 0 || (members[l] >> s.lane & 1) == 0)
      w.block->object(w, Mask{1} << l, "shuffle reads a lane that takes no part",
                      "lane " + std::to_string(s.lane));
    to[l] = values[s.lane];
    if (inside != nullptr) inside[l] = s.inside;
  });
}

void vote(Warp& w, const Instruction& in, Mask lanes) {
  const uint32_t* members = lanes_of<uint32_t>(w, in.members);
  uint32_t* to = lanes_of<uint32_t>(w, in.to);
  Mask set = set_lanes(w, in.from[0], lanes);
  if (in.vote_negated) set = lanes & ~set;
  each_lane(lanes, [&](int l) {
    const Mask asked = members[l] & lanes, yes = set & asked;
    switch (in.vote) {
      case Vote::any:
        to[l] = yes != 0;
        break;
      case Vote::all:
        to[l] = yes == asked;
        break;
      case Vote::uniform:
        to[l] = yes == asked || yes == 0;
        break;
      case Vote::count:
        to[l] = static_cast<uint32_t>(std::popcount(yes));
        break;
      case Vote::ballot:
      case Vote::none:
        to[l] = yes;
        break;
    }
  });
}

}  // namespace emulator
