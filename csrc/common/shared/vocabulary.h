// The words of an algorithm that is written once for the host and the device.
//
// Such a header includes this file only and lies in namespace kdops::<room>::KDOPS_WHERE, with the
// words of kdops::KDOPS_WHERE at hand. It is a template on a number type V: on the host, once per
// instruction set, float, double, or packs of them with an item in every lane (pack.h); on the
// device the number of one thread (device_math.cuh). Branches on a V are blends: select() under a
// Mask<V>. Where a V is kept (a lane's array, a strided column of shared memory) is a parameter.
#pragma once

#include <limits>

#if defined(__CUDACC__) || defined(KDOPS_SIM)

#include "common/gpu/device_math.cuh"
#define KDOPS_WHERE gpu
#define KDOPS_FN KDOPS_DEVICE

namespace kdops::gpu {
template <class V>
using Scalar = V;
template <class V>
using Mask = bool;
// a / b; on the device within 2 ulp for float.
template <class V>
KDOPS_FN V quotient(V a, V b) {
  return a * reciprocal(b);
}
}  // namespace kdops::gpu

#else

#include "common/simd/pack.h"
#define KDOPS_WHERE KDOPS_ISA
#define KDOPS_FN inline

namespace kdops::KDOPS_ISA {
template <class V>
KDOPS_FN V quotient(V a, V b) {
  return a / b;
}
}  // namespace kdops::KDOPS_ISA

#endif
