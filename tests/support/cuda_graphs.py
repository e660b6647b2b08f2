"""CUDA graphs of a call, for the tests that run on a GPU."""

import torch


def captured(call):
    """(graph of call(), what a replay fills). The call before it must not wait for the GPU."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # what a first call prepares
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return graph, results


def on_cpu(tensors):
    return [t.cpu() for t in tensors]
