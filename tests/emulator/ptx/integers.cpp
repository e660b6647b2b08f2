// Integer arithmetic. Compiled with -fwrapv: a sum that does not fit wraps, as on the device.
#include "ptx/table.h"

namespace emulator {
namespace {

// The device does not trap; what it gives for a division by zero is not specified.
template <class T>
T quotient(T a, T b) {
  if (b == 0) return T(-1);
  if (T(-1) < T(0) && b == T(-1)) return T(T(0) - a);
  return a / b;
}
template <class T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if (T(-1) < T(0) && b == T(-1)) return T(0);
  return a % b;
}
template <class T>
T shifted_left(T a, uint32_t by) {
  return by >= sizeof(T) * 8 ? T(0) : T(a << by);
}
template <class T>
T shifted_right(T a, uint32_t by) {
  if (by >= sizeof(T) * 8) return a < T(0) ? T(-1) : T(0);
  return T(a >> by);
}

template <class T>
void add_type(Table& t, const std::string& type) {
  t.add("add." + type, [](T a, T b) { return T(a + b); });
  t.add("sub." + type, [](T a, T b) { return T(a - b); });
  t.add("mul.lo." + type, [](T a, T b) { return T(a * b); });
  t.add("mad.lo." + type, [](T a, T b, T c) { return T(a * b + c); });
  t.add("div." + type, [](T a, T b) { return quotient(a, b); });
  t.add("rem." + type, [](T a, T b) { return remainder(a, b); });
  t.add("min." + type, [](T a, T b) { return a < b ? a : b; });
  t.add("max." + type, [](T a, T b) { return a > b ? a : b; });
  t.add("abs." + type, [](T a) { return a < T(0) ? T(T(0) - a) : a; });
  t.add("neg." + type, [](T a) { return T(T(0) - a); });
  t.add("shr." + type, [](T a, uint32_t by) { return shifted_right(a, by); });
}

// 16 bits, in the low half of a register
void add_halves(Table& t) {
  t.add("add.s16", [](uint32_t a, uint32_t b) { return (a + b) & 0xffffu; });
  t.add("sub.s16", [](uint32_t a, uint32_t b) { return (a - b) & 0xffffu; });
  t.add("mul.lo.s16", [](uint32_t a, uint32_t b) { return (a * b) & 0xffffu; });
}

}  // namespace

void add_integers(Table& t) {
  add_type<int32_t>(t, "s32");
  add_type<uint32_t>(t, "u32");
  add_type<int64_t>(t, "s64");
  add_type<uint64_t>(t, "u64");
  add_halves(t);
  t.add("shl.b32", [](uint32_t a, uint32_t by) { return shifted_left(a, by); });
  t.add("shl.b64", [](uint64_t a, uint32_t by) { return shifted_left(a, by); });
  t.add_alias("shr.b32", "shr.u32");
  t.add_alias("shr.b64", "shr.u64");
  t.add("mul.wide.u16", [](uint32_t a, uint32_t b) { return (a & 0xffffu) * (b & 0xffffu); });
  t.add("mul.wide.s32", [](int32_t a, int32_t b) { return int64_t{a} * b; });
  t.add("mul.wide.u32", [](uint32_t a, uint32_t b) { return uint64_t{a} * b; });
  t.add("mad.wide.s32", [](int32_t a, int32_t b, int64_t c) { return int64_t{a} * b + c; });
  t.add("mad.wide.u32", [](uint32_t a, uint32_t b, uint64_t c) { return uint64_t{a} * b + c; });
  t.add("mul.hi.s32", [](int32_t a, int32_t b) { return int32_t(int64_t{a} * b >> 32); });
  t.add("mul.hi.u32", [](uint32_t a, uint32_t b) { return uint32_t(uint64_t{a} * b >> 32); });
  t.add("mul.hi.u64", [](uint64_t a, uint64_t b) {
    return uint64_t(static_cast<unsigned __int128>(a) * b >> 64);
  });
}

}  // namespace emulator
