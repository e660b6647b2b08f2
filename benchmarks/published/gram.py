"""Gram and FSP as the published implementations compute them, written afresh."""

import torch


def fsp_broadcast(f1, f2):
    """Every product of every channel pair stored, then averaged: B x C1 x C2 x L memory."""
    return (f1.flatten(2).unsqueeze(2) * f2.flatten(2).unsqueeze(1)).mean(-1)


def fsp_bmm(f1, f2):
    """The form of most libraries: one batched matrix product."""
    x, y = f1.flatten(2), f2.flatten(2)
    return torch.bmm(x, y.transpose(1, 2)) / x.shape[-1]
