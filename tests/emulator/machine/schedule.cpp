// Which lanes of a warp run next. Lanes that have diverged are groups with a place in the program
// each. The group that is furthest behind runs, until it reaches another one, which it joins; that
// is how a compiler places the code after a branch, behind both sides of it.
#include <algorithm>
#include <cstdio>
#include <limits>

#include "machine/block.h"

namespace emulator {
namespace {

std::string stuck(const Warp& w, const Program& program) {
  std::string text = "deadlock inside warp " + std::to_string(w.number) + ":";
  for (const LaneGroup& g : w.groups) {
    char lanes[16];
    std::snprintf(lanes, sizeof lanes, "%08x", g.lanes);
    const Instruction& in = program.code[static_cast<size_t>(g.at)];
    text += std::string(" lanes ") + lanes + " wait at line " + std::to_string(in.line);
  }
  return text;
}

// The group that runs next, with all that stand where it does; its lanes are empty if all wait.
LaneGroup take_next(Warp& w) {
  LaneGroup next = {std::numeric_limits<int>::max(), 0, false};
  for (const LaneGroup& g : w.groups)
    if (!g.waits && g.at < next.at) next.at = g.at;
  for (const LaneGroup& g : w.groups)
    if (g.at == next.at) next.lanes |= g.lanes;
  std::erase_if(w.groups, [&](const LaneGroup& g) { return g.at == next.at; });
  return next;
}

}  // namespace

// Until all its lanes have left or wait at a barrier of the block.
void Block::run_warp(Warp& w) {
  while (!w.groups.empty()) {
    const LaneGroup next = take_next(w);
    if (next.lanes == 0) throw Trap(stuck(w, *launch_.program));
    if (!run_group(w, next)) return;
  }
  w.done = true;
}

// False if the warp waits at a barrier of the block.
bool Block::run_group(Warp& w, LaneGroup group) {
  int meets = std::numeric_limits<int>::max();  // where the next group stands
  for (const LaneGroup& g : w.groups) meets = std::min(meets, g.at);
  while (true) {
    at_ = group.at;
    const Kind kind = launch_.program->code[static_cast<size_t>(at_)].kind;
    if (!step(w, group)) return false;
    if (group.lanes == 0) return true;
    if (w.groups.empty()) {
      meets = std::numeric_limits<int>::max();
    } else if (kind >= Kind::branch || group.at >= meets) {
      w.groups.push_back(group);
      return true;
    }
  }
}

// One instruction of one group; false if the warp waits at a barrier of the block.
bool Block::step(Warp& w, LaneGroup& group) {
  const Instruction& in = launch_.program->code[static_cast<size_t>(group.at)];
  Mask lanes = group.lanes;
  if (in.guard != kNoSlot) {
    const Mask set = set_lanes(w, in.guard, lanes);
    lanes = in.guard_negated ? lanes & ~set : set;
  }
  if (++instructions > limit_) throw Trap("more instructions than the budget: an endless loop?");
  switch (in.kind) {
    case Kind::compute:
    case Kind::memory:
      if (lanes != 0) in.run(w, in, lanes);
      if (clock_ != nullptr) clock_->issue(w, in, lanes, false);
      ++group.at;
      return true;
    case Kind::branch:
      take_branch(w, group, in, lanes);
      return true;
    case Kind::exit:
      leave(w, group, in, lanes);
      return true;
    case Kind::warp_operation:
      run_warp_operation(w, group, in, lanes);
      return true;
    case Kind::block_barrier:
      return reach_barrier(w, group, in, lanes);
  }
  return true;
}

void Block::take_branch(Warp& w, LaneGroup& group, const Instruction& in, Mask taken) {
  const Mask other = group.lanes & ~taken;
  if (clock_ != nullptr) clock_->issue(w, in, taken, taken != 0);
  if (taken != 0 && other != 0) w.groups.push_back({group.at + 1, other, false});
  if (taken == 0) {
    ++group.at;
  } else {
    group.at = in.target, group.lanes = taken;
  }
}

void Block::leave(Warp& w, LaneGroup& group, const Instruction& in, Mask lanes) {
  if (clock_ != nullptr) clock_->issue(w, in, lanes, false);
  w.live &= ~lanes;
  group.lanes &= ~lanes;
  ++group.at;
  for (LaneGroup& g : w.groups) g.waits = false;  // those that waited for these look again
}

void Block::run_warp_operation(Warp& w, LaneGroup& group, const Instruction& in, Mask lanes) {
  const Mask go = lanes == 0 ? 0 : ready(w, in, lanes), stay = lanes & ~go;
  if (stay != 0) w.groups.push_back({group.at, stay, true});
  group.lanes &= ~stay;
  if (clock_ != nullptr && (go != 0 || lanes == 0)) clock_->issue(w, in, go, false);
  if (go != 0) {
    if (in.run != nullptr)
      in.run(w, in, go);
    else
      ++w.interval;  // a barrier of the warp
  }
  ++group.at;
}

// Of `lanes`, which stand at a warp operation together: those whose named lanes are all here.
Mask Block::ready(Warp& w, const Instruction& in, Mask lanes) {
  const uint32_t* members = lanes_of<uint32_t>(w, in.members);
  Mask go = 0;
  for (Mask left = lanes; left != 0;) {
    const Mask named = members[first_lane(left)] & w.valid;
    Mask same = 0;
    each_lane(left, [&](int l) { same |= Mask{(members[l] & w.valid) == named} << l; });
    left &= ~same;
    if ((same & ~named) != 0) object(w, same & ~named, "warp operation that leaves out its lane");
    if ((named & ~w.live) != 0) object(w, named & ~w.live, "warp operation names a lane that left");
    if ((named & w.live & ~same) == 0) go |= same;
  }
  return go;
}

bool Block::reach_barrier(Warp& w, LaneGroup& group, const Instruction& in, Mask lanes) {
  if (lanes == 0) {
    ++group.at;
    return true;
  }
  if (group.lanes != w.live) {  // lanes of this warp are elsewhere
    w.groups.push_back({group.at, group.lanes, true});
    group.lanes = 0;
    return true;
  }
  if (clock_ != nullptr) clock_->issue(w, in, lanes, false);
  if (lanes != group.lanes) object(w, group.lanes & ~lanes, "block barrier that this lane skips");
  if (w.live != w.valid) object(w, w.valid & ~w.live, "block barrier after this lane has left");
  w.at_barrier = true, w.barrier = &in;
  if (in.vote != Vote::none) {
    const Mask set = set_lanes(w, in.from[0], lanes);
    w.votes = in.vote_negated ? lanes & ~set : set;
  }
  ++w.interval;
  w.groups.push_back({group.at + 1, group.lanes, false});
  return false;
}

}  // namespace emulator
