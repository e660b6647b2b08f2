#include "cost/cost.h"

#include <algorithm>
#include <vector>

#include "ptx/statements.h"

namespace emulator {
namespace {

struct Known {
  std::string_view begins;
  Cost cost;
};

// Sequences that one instruction of PTX becomes; the first that fits counts.
constexpr Known kSequences[] = {
    {"div.rn.f32", {Class::special, 9, 48}},
    {"rcp.rn.f32", {Class::special, 7, 42}},
    {"sqrt.rn.f32", {Class::special, 8, 46}},
    {"div.rn.f64", {Class::special, 14, 130}},
    {"rcp.rn.f64", {Class::special, 10, 100}},
    {"sqrt.rn.f64", {Class::special, 14, 140}},
    {"rcp.approx", {Class::special, 1, Latency::special}},
    {"rsqrt.approx", {Class::special, 3, 32}},  // scaled where the input is denormal
    {"ex2.approx.ftz", {Class::special, 1, Latency::special}},
    {"ex2.approx", {Class::special, 3, 32}},
    {"lg2.approx", {Class::special, 3, 32}},
    {"div.s64", {Class::integer, 70, 400}},
    {"rem.s64", {Class::integer, 70, 400}},
    {"div.u", {Class::integer, 16, 90}},
    {"rem.u", {Class::integer, 17, 95}},
    {"div.s", {Class::integer, 18, 95}},
    {"rem.s", {Class::integer, 19, 100}},
    {"mul.lo.s64", {Class::integer, 3, 15}},
    {"mad.lo.s64", {Class::integer, 3, 15}},
    {"mul.wide", {Class::integer, 1, Latency::integer}},
    {"cvta", {Class::move, 0, 0}},
    {"mov", {Class::move, 0, 0}},
    {"ld.param", {Class::move, 0, 0}},  // an operand of what reads it: a bank of constants
    {"neg.f", {Class::move, 0, 0}},     // neg, abs and not are part of what reads them
    {"abs.f", {Class::move, 0, 0}},
    {"not.pred", {Class::move, 0, 0}},
    {"cvt.u64.u32", {Class::move, 0, 0}},
    {"cvt.u32.u64", {Class::move, 0, 0}},
    {"cvt.s64.s32", {Class::integer, 1, Latency::integer}},
    {"bra.uni", {Class::branch, 1, 0}},
    {"bra", {Class::branch, 1, 0}},
    {"ret", {Class::branch, 1, 0}},
    {"exit", {Class::branch, 1, 0}},
    {"bar.warp", {Class::barrier, 1, 0}},
    {"bar", {Class::barrier, 1, 0}},
    {"shfl", {Class::shuffle, 1, Latency::shuffle}},
    {"vote", {Class::shuffle, 1, Latency::vote}},
};

Cost of_memory(const std::vector<std::string_view>& pieces) {
  const auto has = [&](std::string_view piece) {
    return std::find(pieces.begin(), pieces.end(), piece) != pieces.end();
  };
  if (has("shared")) return {Class::shared, 1, Latency::shared};
  if (has("local")) return {Class::local, 1, Latency::near};
  return {Class::global, 1, Latency::near};  // the clock knows better, and where generic ones go
}

}  // namespace

Cost cost_of(std::string_view name) {
  for (const Known& known : kSequences)
    if (name.starts_with(known.begins)) return known.cost;
  const auto pieces = split_at(name, '.');
  const std::string_view what = pieces.front(), type = pieces.back();
  if (what == "ld" || what == "st" || what == "atom") return of_memory(pieces);
  if (what == "cvt") return {Class::convert, 1, Latency::convert};
  if (type == "f32") return {Class::float32, 1, Latency::float32};
  // minima, comparisons and choices of doubles are two halves
  if (type == "f64") return {Class::float64, 1, Latency::float64};
  const bool wide =
      type.ends_with("64") && (what == "add" || what == "sub" || what == "shl" || what == "shr" ||
                               what == "selp" || what == "and" || what == "or" || what == "setp");
  return {Class::integer, wide ? 2.0f : 1.0f, Latency::integer + (wide ? 1 : 0)};
}

}  // namespace emulator
