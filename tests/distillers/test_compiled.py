"""Every method of the zoos compiles whole: one graph of all of them, with value and gradient."""

import pytest
import torch
from support.distiller_cases import leaf

import kdops.distillers as kd


@pytest.mark.slow
def test_one_graph():
    z, x, v = ([leaf(*size, seed=i) for i in range(2)] for size in ((6, 5), (6, 4, 4, 4), (6, 7)))
    logits = [kd.DKD(), kd.WSLD(), kd.DIST(), kd.MLKD(others=()), kd.SKDDirection(),
              kd.SoftTarget(standardise=True)]  # fmt: skip
    maps = [kd.CWD(), kd.PKD(), kd.CATKD(), kd.ReviewKD([4], [4])]
    rows = [kd.CC(), kd.RSD(), kd.DarkRank(), kd.SRD([7], [7]), kd.CRD([7], [7], 9, negatives=3)]
    kinds = [(logits, z), (maps, x), (rows, v)]
    sides = [{m.name: pair[i] for methods, pair in kinds for m in methods} for i in range(2)]
    method = kd.WeightedSum({m.name: m for methods, _ in kinds for m in methods}).double().eval()
    labels, index = torch.arange(6) % 5, torch.arange(6)
    options = method.batch_options({"target": labels, "index": index}.get)
    options["CRD"]["negatives"] = torch.arange(18).view(6, 3) % 9
    results = []
    for run in (method, torch.compile(method, backend="eager", fullgraph=True)):
        loss = run(*sides, **options)
        results.append([loss, *torch.autograd.grad(loss, [z[0], x[0], v[0]])])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)
