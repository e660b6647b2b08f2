// cvt and cvta. The registers of a conversion may be wider than its types: the parser says so in
// wide_to and wide_from.
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "machine/windows.h"
#include "ptx/table.h"

namespace emulator {
namespace {

// A float that does not fit becomes the nearest integer that does; NaN becomes 0.
template <class To, class From>
To converted(From x) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (x != x) return 0;
    if (x <= static_cast<From>(std::numeric_limits<To>::min()))
      return std::numeric_limits<To>::min();
    if (x >= static_cast<From>(std::numeric_limits<To>::max()))
      return std::numeric_limits<To>::max();
  }
  return static_cast<To>(x);
}

template <class T>
T read(Warp& w, Slot slot, bool wide, int lane) {
  if constexpr (std::is_floating_point_v<T>) return lanes_of<T>(w, slot)[lane];
  if (sizeof(T) == 8 || wide) return static_cast<T>(lanes_of<uint64_t>(w, slot)[lane]);
  return static_cast<T>(lanes_of<uint32_t>(w, slot)[lane]);
}

template <class T>
void write(Warp& w, Slot slot, bool wide, int lane, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    lanes_of<T>(w, slot)[lane] = value;
  } else if (sizeof(T) == 8 || wide) {
    lanes_of<uint64_t>(w, slot)[lane] = static_cast<uint64_t>(static_cast<int64_t>(value));
  } else {
    lanes_of<uint32_t>(w, slot)[lane] = static_cast<uint32_t>(value);
  }
}

struct AsItIs {
  template <class T>
  static T apply(T x) {
    return x;
  }
};
struct ToNearest {
  template <class T>
  static T apply(T x) {
    return std::nearbyint(x);
  }
};
struct Down {
  template <class T>
  static T apply(T x) {
    return std::floor(x);
  }
};
struct Up {
  template <class T>
  static T apply(T x) {
    return std::ceil(x);
  }
};

template <class To, class From, class Rounded>
void convert(Warp& w, const Instruction& in, Mask lanes) {
  each_lane(lanes, [&](int l) {
    const From x = Rounded::apply(read<From>(w, in.from[0], in.wide_from, l));
    write<To>(w, in.to, in.wide_to, l, converted<To>(x));
  });
}

template <class To, class From>
void add_pair(Table& t, const std::string& to, const std::string& from) {
  const auto add = [&](const char* rounding, Run run) {
    t.add(std::string("cvt.") + rounding + to + "." + from, Operation{run, 1, false, {}, true});
  };
  constexpr bool kToFloat = std::is_floating_point_v<To>;
  if constexpr (std::is_floating_point_v<From> && !kToFloat) {
    add("rzi.", convert<To, From, AsItIs>);  // C++ cuts off what is behind the point
    add("rni.", convert<To, From, ToNearest>);
    add("rmi.", convert<To, From, Down>);
    add("rpi.", convert<To, From, Up>);
  } else {
    const bool rounds = kToFloat && !(std::is_same_v<To, double> && std::is_same_v<From, float>);
    add(rounds ? "rn." : "", convert<To, From, AsItIs>);
  }
}

template <class To>
void add_to(Table& t, const std::string& to) {
  add_pair<To, int8_t>(t, to, "s8");
  add_pair<To, uint8_t>(t, to, "u8");
  add_pair<To, int16_t>(t, to, "s16");
  add_pair<To, uint16_t>(t, to, "u16");
  add_pair<To, int32_t>(t, to, "s32");
  add_pair<To, uint32_t>(t, to, "u32");
  add_pair<To, int64_t>(t, to, "s64");
  add_pair<To, uint64_t>(t, to, "u64");
  if constexpr (!std::is_same_v<To, float>) add_pair<To, float>(t, to, "f32");
  if constexpr (!std::is_same_v<To, double>) add_pair<To, double>(t, to, "f64");
}

// Half precision, in the low half of a register
void add_halves(Table& t) {
  t.add("cvt.f32.f16", [](uint32_t a) {
    const auto bits = static_cast<uint16_t>(a);
    _Float16 x;
    std::memcpy(&x, &bits, sizeof x);
    return static_cast<float>(x);
  });
  t.add("cvt.rn.f16.f32", [](float a) {
    const auto x = static_cast<_Float16>(a);
    uint16_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return uint32_t{bits};
  });
}

}  // namespace

void add_conversions(Table& t) {
  add_to<int8_t>(t, "s8");
  add_to<uint8_t>(t, "u8");
  add_to<int16_t>(t, "s16");
  add_to<uint16_t>(t, "u16");
  add_to<int32_t>(t, "s32");
  add_to<uint32_t>(t, "u32");
  add_to<int64_t>(t, "s64");
  add_to<uint64_t>(t, "u64");
  add_to<float>(t, "f32");
  add_to<double>(t, "f64");
  add_halves(t);
  t.add("cvta.shared.u64", [](uint64_t a) { return a + kSharedWindow; });
  t.add("cvta.to.shared.u64", [](uint64_t a) { return a - kSharedWindow; });
  t.add("cvta.local.u64", [](uint64_t a) { return a + kLocalWindow; });
  t.add("cvta.to.local.u64", [](uint64_t a) { return a - kLocalWindow; });
  t.add("cvta.global.u64", [](uint64_t a) { return a; });
  t.add("cvta.to.global.u64", [](uint64_t a) { return a; });
}

}  // namespace emulator
