// The special function unit, whose last bits are its own. Here its results are correctly rounded
// (but for double rounding), so a kernel that needs them exact is not caught by these.
#include <cmath>
#include <limits>

#include "ptx/table.h"

namespace emulator {
namespace {

float flushed(float a) {
  return std::fabs(a) < std::numeric_limits<float>::min() ? std::copysign(0.0f, a) : a;
}

template <double F(double)>
float by_double(float a) {
  return static_cast<float>(F(double{a}));
}
double reciprocal(double a) { return 1 / a; }
double reciprocal_root(double a) { return 1 / std::sqrt(a); }
double power_of_two(double a) { return std::exp2(a); }
double logarithm_of_two(double a) { return std::log2(a); }

}  // namespace

void add_approximations(Table& t) {
  t.add("rcp.approx.f32", [](float a) { return by_double<reciprocal>(a); });
  t.add("rcp.approx.ftz.f32", [](float a) { return flushed(by_double<reciprocal>(flushed(a))); });
  t.add("rsqrt.approx.f32", [](float a) { return by_double<reciprocal_root>(a); });
  t.add("ex2.approx.f32", [](float a) { return by_double<power_of_two>(a); });
  t.add("ex2.approx.ftz.f32", [](float a) { return flushed(by_double<power_of_two>(flushed(a))); });
  t.add("lg2.approx.f32", [](float a) { return by_double<logarithm_of_two>(a); });
}

}  // namespace emulator
