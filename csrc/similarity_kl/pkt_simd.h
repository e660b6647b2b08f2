// CPU entry points of PKT's loss, one copy per instruction set.
#pragma once

#include "common/simd/isa.h"
#include "similarity_kl/problem.h"

namespace kdops::similarity_kl {

template <class T>
struct PktProblem {
  Given<T> given[2];  // student and teacher, one batch entry
  Network<T> networks[2];
  double epsilon;
  bool gradients;
  double* losses;   // of every block
  double* shares;   // of every row: e_i w_i
  double* weights;  // of every row: the sum of its weights
  double* common;   // (width), what the e_i give to all rows; known after the blocks
  T* out;           // (count, width)
};

// Factors, centre and places of networks begin..end.
KDOPS_ENTRY(pkt_place, PktProblem)

// Losses of blocks begin..end, and in out what the products give to their rows.
KDOPS_ENTRY(pkt_blocks, PktProblem)

// Rows begin..end of the gradient, in place.
KDOPS_ENTRY(pkt_finish, PktProblem)

}  // namespace kdops::similarity_kl
