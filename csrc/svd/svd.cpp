// Schemas of the svd room. A [*, m, n], float32 or float64, any leading dimensions; p = min(m, n).
//   svd                U [*, m, p] ([*, m, 0] if not compute_u), S [*, p] descending, Vh [*, p, n]
//   svd_backward       gA for cotangents of U, S, Vh (none: zero) under "mask" or "lorentz"
//   svdvals            S [*, p]
//   eigh               of symmetric A (lower triangle): values [*, n] ascending, vectors as columns
//   svd_topk           the k largest triples, and `saved` [*, topk_saved_rows(p, k), p]: what the
//                      backward takes from the Gram matrix, opaque, different on every device
//   svd_topk_backward  the same for the k triples, reading A
// lorentz in a forward op only travels to its gradient; kernels ignore it.
// A matrix that holds NaN or Inf gives NaN in all its own outputs and touches no other.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(kdops, m) {
  m.def(
      "svd(Tensor A, bool compute_u, bool canonical, bool fast, bool lorentz) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "svd_backward(Tensor? gU, Tensor? gS, Tensor? gVh, Tensor U, Tensor S, Tensor Vh, "
      "bool lorentz) -> Tensor");
  m.def("svdvals(Tensor A) -> Tensor");
  m.def("eigh(Tensor A) -> (Tensor, Tensor)");
  m.def(
      "svd_topk(Tensor A, int k, bool compute_u, bool canonical, bool lorentz) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "svd_topk_backward(Tensor? gU, Tensor? gS, Tensor? gVh, Tensor A, Tensor U, Tensor S, "
      "Tensor Vh, Tensor saved, bool lorentz) -> Tensor");
}
