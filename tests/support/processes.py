"""A gloo group of this process, or of several in one test, and a batch that they share unevenly."""

import datetime
import gc
import multiprocessing
import time
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

ROWS = {2: [3, 5], 3: [2, 0, 4]}
LONGEST = 300  # seconds that a test may take; without a limit one that hangs is never named


@contextmanager
def group_of_one(folder):
    """What is wrapped in DistributedDataParallel meanwhile ends before the group does. A wrapper
    that is the last to hold a group waits for gloo's threads with the GIL, and these may be waiting
    for the GIL, to release a Python object: such a test hung now and then.
    """
    join(0, 1, folder / "group")
    yield
    gc.collect()
    dist.destroy_process_group()


def join(rank, world, store):
    patience = datetime.timedelta(seconds=LONGEST / 2)  # gloo's own is half an hour
    dist.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=world, timeout=patience
    )


def launch(function, world, tmp_path):
    """Run function(rank, world) in every process; an assertion there fails the test here.

    They are forks of a server that has only imported modules, not of this process: what its threads
    hold (of earlier tests' process groups, of pytest-xdist) would stay held in a fork.
    """
    multiprocessing.set_forkserver_preload(["pytest", "torch._dynamo", "kdops.training"])
    arguments = (function, world, str(tmp_path / "store"))
    processes = mp.start_processes(_entry, arguments, world, join=False, start_method="forkserver")
    until = time.monotonic() + LONGEST
    while not processes.join(timeout=5):
        if time.monotonic() > until:
            for process in processes.processes:
                process.kill()
            raise TimeoutError(f"{function} did not end within {LONGEST} s")


def _entry(rank, function, world, store):
    join(rank, world, store)
    torch.set_num_threads(1)
    try:
        function(rank, world)
    finally:
        dist.destroy_process_group()


def whole_batch(world):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(sum(ROWS[world]), 4, generator=generator, dtype=torch.float64)
    begin = [sum(ROWS[world][:r]) for r in range(world)]
    return x, [slice(b, b + n) for b, n in zip(begin, ROWS[world], strict=True)]


def check_states_agree(module, world):
    for value in module.state_dict().values():
        parts = [torch.empty_like(value) for _ in range(world)]
        dist.all_gather(parts, value.contiguous())
        assert all(torch.equal(part, parts[0]) for part in parts)
