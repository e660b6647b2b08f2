// One CPU algorithm, several instruction sets, one binary.
//
// CMake compiles every csrc/<op>/<op>_simd.cpp once per instruction set, each time with another
// KDOPS_ISA (baseline, avx2, avx512). Such a file puts all it defines into namespace
// kdops::<room>::KDOPS_ISA, so that no room's name meets another's; the common vocabulary,
// kdops::KDOPS_ISA, is at hand there. It includes no torch header, so that no inline function
// of torch is ever compiled with wider instructions than the machine may have. Its entry points are
// declared in kdops::<room> by <op>_simd.h, with KDOPS_ENTRY where a struct holds the problem (else
// with KDOPS_KERNEL or KDOPS_PER_ISA), compiled for each type with KDOPS_COMPILE beside their
// definition, and the glue (<op>_cpu.cpp, compiled once) calls the widest one with KDOPS_BEST.
#pragma once

#include <cstdint>

#ifndef KDOPS_ISA
#define KDOPS_ISA baseline
#endif

// Declares an entry point in the namespace of every instruction set that this build contains.
#define KDOPS_IN(isa, ...) \
  namespace isa {          \
  __VA_ARGS__              \
  }
#ifdef KDOPS_X86
#define KDOPS_PER_ISA(...) \
  KDOPS_IN(baseline, __VA_ARGS__) KDOPS_IN(avx2, __VA_ARGS__) KDOPS_IN(avx512, __VA_ARGS__)
#else
#define KDOPS_PER_ISA(...) KDOPS_IN(baseline, __VA_ARGS__)
#endif

// The usual one, on items begin..end: of a problem, or of what other arguments say.
#define KDOPS_KERNEL(name, ...) \
  KDOPS_PER_ISA(template <class T> void name(__VA_ARGS__, int64_t begin, int64_t end);)
#define KDOPS_ENTRY(name, Problem) KDOPS_KERNEL(name, const Problem<T>& problem)

// Compiles a declared entry point for a type; beside its definition.
#define KDOPS_COMPILE(name, T) template decltype(name<T>) name<T>;
#define KDOPS_COMPILE_REAL(name) KDOPS_COMPILE(name, float) KDOPS_COMPILE(name, double)

// The entry point for this machine: KDOPS_BEST(gram_forward<float>)(arguments).
#ifdef KDOPS_X86
#define KDOPS_BEST(...)                                                 \
  (::kdops::active_isa() == ::kdops::Isa::avx512 ? &avx512::__VA_ARGS__ \
   : ::kdops::active_isa() == ::kdops::Isa::avx2 ? &avx2::__VA_ARGS__   \
                                                 : &baseline::__VA_ARGS__)
#else
#define KDOPS_BEST(...) (&baseline::__VA_ARGS__)
#endif

namespace kdops::KDOPS_ISA {}
namespace kdops {
using namespace KDOPS_ISA;

enum class Isa { baseline, avx2, avx512 };

// The widest set that both this build and this processor have. The environment variable KDOPS_ISA
// may name a narrower one (for tests and bug reports). Decided once, at the first call.
Isa active_isa();

const char* isa_name(Isa isa);

}  // namespace kdops
