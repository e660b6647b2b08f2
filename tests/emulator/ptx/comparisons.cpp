// setp: the unordered forms (equ, ltu, ...) are true for NaN.
#include "ptx/table.h"

namespace emulator {
namespace {

template <class T, class Register>
void add_ordered(Table& t, const std::string& type) {
  const auto add = [&](const char* name, auto compare) {
    t.add(std::string("setp.") + name + "." + type, compare);
  };
  add("eq", [](Register a, Register b) { return uint32_t(T(a) == T(b)); });
  add("lt", [](Register a, Register b) { return uint32_t(T(a) < T(b)); });
  add("le", [](Register a, Register b) { return uint32_t(T(a) <= T(b)); });
  add("gt", [](Register a, Register b) { return uint32_t(T(a) > T(b)); });
  add("ge", [](Register a, Register b) { return uint32_t(T(a) >= T(b)); });
}

template <class T, class Register = T>
void add_integer(Table& t, const std::string& type) {
  add_ordered<T, Register>(t, type);
  t.add("setp.ne." + type, [](Register a, Register b) { return uint32_t(T(a) != T(b)); });
}

template <class T>
void add_float(Table& t, const std::string& type) {
  add_ordered<T, T>(t, type);
  const auto add = [&](const char* name, auto compare) {
    t.add(std::string("setp.") + name + "." + type, compare);
  };
  add("ne", [](T a, T b) { return uint32_t(a < b || a > b); });
  add("equ", [](T a, T b) { return uint32_t(!(a < b || a > b)); });
  add("neu", [](T a, T b) { return uint32_t(!(a == b)); });
  add("ltu", [](T a, T b) { return uint32_t(!(a >= b)); });
  add("leu", [](T a, T b) { return uint32_t(!(a > b)); });
  add("gtu", [](T a, T b) { return uint32_t(!(a <= b)); });
  add("geu", [](T a, T b) { return uint32_t(!(a < b)); });
  add("num", [](T a, T b) { return uint32_t(a == a && b == b); });
  add("nan", [](T a, T b) { return uint32_t(a != a || b != b); });
}

}  // namespace

void add_comparisons(Table& t) {
  add_integer<int32_t>(t, "s32");
  add_integer<uint32_t>(t, "u32");
  add_integer<int64_t>(t, "s64");
  add_integer<uint64_t>(t, "u64");
  add_integer<int16_t, uint32_t>(t, "s16");
  add_integer<uint16_t, uint32_t>(t, "u16");
  for (const char* compare : {"eq", "ne"})
    for (const auto& [bits, type] : {std::pair{"b16", "u16"}, {"b32", "u32"}, {"b64", "u64"}})
      t.add_alias(std::string("setp.") + compare + "." + bits,
                  std::string("setp.") + compare + "." + type);
  add_float<float>(t, "f32");
  add_float<double>(t, "f64");
}

}  // namespace emulator
