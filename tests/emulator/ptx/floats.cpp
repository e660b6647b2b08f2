// Floating-point arithmetic that rounds to nearest: what the standard fixes, so that the host's
// result is the device's to the last bit. Compiled with -ffp-contract=off.
#include <cmath>

#include "ptx/table.h"

namespace emulator {
namespace {

// A number wins against NaN, and +0 is greater than -0.
template <class T>
T maximum(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}
template <class T>
T minimum(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}

template <class T>
void add_type(Table& t, const std::string& type) {
  for (const std::string rounding : {"", ".rn"}) {
    t.add("add" + rounding + "." + type, [](T a, T b) { return a + b; });
    t.add("sub" + rounding + "." + type, [](T a, T b) { return a - b; });
    t.add("mul" + rounding + "." + type, [](T a, T b) { return a * b; });
  }
  t.add("fma.rn." + type, [](T a, T b, T c) { return std::fma(a, b, c); });
  t.add("div.rn." + type, [](T a, T b) { return a / b; });
  t.add("rcp.rn." + type, [](T a) { return T(1) / a; });
  t.add("sqrt.rn." + type, [](T a) { return std::sqrt(a); });
  t.add("max." + type, [](T a, T b) { return maximum(a, b); });
  t.add("min." + type, [](T a, T b) { return minimum(a, b); });
  t.add("abs." + type, [](T a) { return std::fabs(a); });
  t.add("neg." + type, [](T a) { return -a; });
  t.add("copysign." + type, [](T sign, T a) { return std::copysign(a, sign); });
  t.add("cvt.rni." + type + "." + type, [](T a) { return std::nearbyint(a); });
  t.add("cvt.rzi." + type + "." + type, [](T a) { return std::trunc(a); });
  t.add("cvt.rmi." + type + "." + type, [](T a) { return std::floor(a); });
  t.add("cvt.rpi." + type + "." + type, [](T a) { return std::ceil(a); });
}

}  // namespace

void add_floats(Table& t) {
  add_type<float>(t, "f32");
  add_type<double>(t, "f64");
  t.add("cvt.sat.f32.f32", [](float a) { return !(a > 0) ? 0.0f : a > 1 ? 1.0f : a; });
}

}  // namespace emulator
