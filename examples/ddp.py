"""Student and method trained as one module by several processes.

    torchrun --nproc-per-node 2 examples/ddp.py

fit's wrap gets both as one module, so DistributedDataParallel averages the gradients of the student
and of the method's connectors and lets all processes begin with the same ones. The last line checks
that they end with the same ones, too.
"""

import os

import torch
import torch.distributed as dist
from resnet import resnet
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from kdops.distillers import KDSVD, SoftTarget, WeightedSum
from kdops.training import fit

LAYERS = ["layer1", "layer2", "layer3"]


def main(epochs: int = 2) -> float:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,)))
    torch.manual_seed(dist.get_rank())  # networks differ until they are wrapped
    teacher, student = resnet(depth=2), resnet(depth=1)
    svd = KDSVD([64, 128, 256], [64, 128, 256], k=2)
    method = WeightedSum({"kd": SoftTarget(), "svd": svd}, {"svd": 0.1})
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], 0.01)
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data))
    fit(student, teacher, method, loader, epochs=epochs, layers=(LAYERS, LAYERS),
        optimizer=optimizer, wrap=DistributedDataParallel, progress=False)  # fmt: skip

    mine = torch.cat([p.detach().flatten() for p in student.parameters()])
    theirs = mine.clone()
    dist.broadcast(theirs, src=0)
    error = float((mine - theirs).abs().max())
    if dist.get_rank() == dist.get_world_size() - 1:
        print(f"{dist.get_world_size()} processes: the students differ by {error:.1e}")
    dist.destroy_process_group()
    return error


if __name__ == "__main__":
    if "RANK" not in os.environ:
        raise SystemExit("run it with: torchrun --nproc-per-node 2 examples/ddp.py")
    main()
