// Chooses the instruction set once, from the processor and the environment.
#include "common/simd/isa.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace kdops {
namespace {

Isa widest_of_this_machine() {
#ifdef KDOPS_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa choose() {
  const Isa widest = widest_of_this_machine();
  const char* wish = std::getenv("KDOPS_ISA");
  if (wish == nullptr) return widest;
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (std::strcmp(wish, isa_name(isa)) == 0 && isa <= widest) return isa;
  return widest;
}

}  // namespace

const char* isa_name(Isa isa) {
  if (isa == Isa::avx512) return "avx512";
  return isa == Isa::avx2 ? "avx2" : "baseline";
}

Isa active_isa() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace kdops
