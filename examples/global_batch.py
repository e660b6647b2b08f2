"""Relations over the global batch of several processes.

    torchrun --nproc-per-node 2 examples/global_batch.py

Every process holds half of the batch; RKD(group="world") sees all of it. DistributedDataParallel
averages the gradients, gather_batch's backward sums them, so the student's gradient is that of one
process with the whole batch; the last lines check it.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdops.distillers import RKD


def main() -> float:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, teacher = torch.randn(12, 8), torch.randn(12, 16)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    ddp, method = DistributedDataParallel(net), RKD(group="world")
    mine = torch.arange(rank, 12, world)

    method(ddp(images[mine]), teacher[mine]).backward()
    gradient = net[0].weight.grad.clone()

    order = torch.cat([torch.arange(r, 12, world) for r in range(world)])
    net.zero_grad()
    RKD()(net(images[order]), teacher[order]).backward()
    error = float((gradient - net[0].weight.grad).abs().max() / gradient.abs().max())
    if rank == 0:
        print(f"{world} processes: gradient differs from one process's by {error:.1e} (relative)")
    dist.destroy_process_group()
    return error


if __name__ == "__main__":
    if "RANK" not in os.environ:
        raise SystemExit("run it with: torchrun --nproc-per-node 2 examples/global_batch.py")
    main()
