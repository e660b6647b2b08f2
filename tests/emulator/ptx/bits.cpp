// Logic, moves, selections and bit fields. A predicate is a register that holds 0 or 1.
#include <bit>

#include "ptx/table.h"

namespace emulator {
namespace {

template <class T>
void add_logic(Table& t, const std::string& type) {
  t.add("and." + type, [](T a, T b) { return T(a & b); });
  t.add("or." + type, [](T a, T b) { return T(a | b); });
  t.add("xor." + type, [](T a, T b) { return T(a ^ b); });
}

template <class T>
void add_moves(Table& t, const std::string& type) {
  t.add("mov." + type, [](T a) { return a; });
  t.add("selp." + type, [](T a, T b, uint32_t c) { return (c & 1) != 0 ? a : b; });
}

template <class T>
T inserted(T a, T b, uint32_t at, uint32_t length) {
  constexpr uint32_t kBits = sizeof(T) * 8;
  at &= 255, length &= 255;
  if (at >= kBits || length == 0) return b;
  const T field = length >= kBits ? ~T(0) : T((T(1) << length) - 1);
  return T((b & ~T(field << at)) | T((a & field) << at));
}

// mov.b64 of a pair of registers, both ways
void unpack(Warp& w, const Instruction& in, Mask lanes) {
  const uint64_t* from = lanes_of<uint64_t>(w, in.from[0]);
  uint32_t *low = lanes_of<uint32_t>(w, in.to), *high = lanes_of<uint32_t>(w, in.second_to);
  each_lane(lanes, [&](int l) {
    const uint64_t value = from[l];
    low[l] = static_cast<uint32_t>(value), high[l] = static_cast<uint32_t>(value >> 32);
  });
}

}  // namespace

void add_bits(Table& t) {
  for (const char* type : {"b16", "b32", "pred"}) add_logic<uint32_t>(t, type);
  add_logic<uint64_t>(t, "b64");
  t.add("not.pred", [](uint32_t a) { return a ^ 1u; });
  t.add("not.b16", [](uint32_t a) { return ~a & 0xffffu; });
  t.add("not.b32", [](uint32_t a) { return ~a; });
  t.add("not.b64", [](uint64_t a) { return ~a; });
  for (const char* type : {"b16", "s16", "u16", "b32", "s32", "u32", "f32", "pred"})
    add_moves<uint32_t>(t, type);
  for (const char* type : {"b64", "s64", "u64", "f64"}) add_moves<uint64_t>(t, type);
  t.add("clz.b32", [](uint32_t a) { return uint32_t(std::countl_zero(a)); });
  t.add("clz.b64", [](uint64_t a) { return uint32_t(std::countl_zero(a)); });
  t.add("popc.b32", [](uint32_t a) { return uint32_t(std::popcount(a)); });
  t.add("popc.b64", [](uint64_t a) { return uint32_t(std::popcount(a)); });
  t.add("bfi.b32", [](uint32_t a, uint32_t b, uint32_t at, uint32_t length) {
    return inserted(a, b, at, length);
  });
  t.add("bfi.b64", [](uint64_t a, uint64_t b, uint32_t at, uint32_t length) {
    return inserted(a, b, at, length);
  });
  t.add("mov.b64 pack", [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; });
  t.add("mov.b64 unpack", Operation{unpack, 1, false, {true}, false});
}

}  // namespace emulator
