// KDOPS_HD marks an algorithm that runs on the host and on the device. Headers that hold such
// functions include only this file, so that CPU code never sees lane.cuh.
#pragma once

#if defined(__CUDACC__)
#define KDOPS_HD __host__ __device__ __forceinline__
#else
#define KDOPS_HD inline
#endif
