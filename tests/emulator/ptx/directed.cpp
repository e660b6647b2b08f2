// Arithmetic that does not round to nearest. Compiled with -frounding-math: without it the compiler
// may move a sum out of the piece of code where the rounding mode is another one.
#include <cfenv>
#include <cmath>

#include "ptx/table.h"

namespace emulator {
namespace {

class Rounding {
 public:
  explicit Rounding(int mode) : before_(std::fegetround()) { std::fesetround(mode); }
  ~Rounding() { std::fesetround(before_); }
  Rounding(const Rounding&) = delete;
  Rounding& operator=(const Rounding&) = delete;

 private:
  int before_;
};

template <class F, int kMode, class T>
void run_rounded(Warp& w, const Instruction& in, Mask lanes) {
  const Rounding rounding(kMode);
  on_lanes<F>(lanes, lanes_of<T>(w, in.to), lanes_of<const T>(w, in.from[0]),
              lanes_of<const T>(w, in.from[1]), lanes_of<const T>(w, in.from[2]));
}

struct MultiplyAdd {
  template <class T>
  T operator()(T a, T b, T c) const {
    return std::fma(a, b, c);
  }
};

template <class T>
void add_type(Table& t, const std::string& type) {
  const auto add = [&]<int kMode>(const char* mode, std::integral_constant<int, kMode>) {
    constexpr bool kWide = sizeof(T) == 8;
    t.add(std::string("fma.") + mode + "." + type,
          Operation{run_rounded<MultiplyAdd, kMode, T>, 3, kWide, {kWide, kWide, kWide}, false});
  };
  add("rm", std::integral_constant<int, FE_DOWNWARD>());
  add("rp", std::integral_constant<int, FE_UPWARD>());
  add("rz", std::integral_constant<int, FE_TOWARDZERO>());
}

}  // namespace

void add_directed(Table& t) {
  add_type<float>(t, "f32");
  add_type<double>(t, "f64");
}

}  // namespace emulator
