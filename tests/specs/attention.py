"""Specs of the attention map and its loss; references written out in full."""

from functools import partial

import torch.nn.functional as F

import kdops
from kdops.testing import Case, ErrorCase, OpSpec
from specs.gram import two_maps


def _map_reference(f, p=2, reduce="sum"):
    power = f.abs() ** p
    return power.amax(1) if reduce == "max" else power.sum(1)


def _attention_reference(student, teacher, p=2, reduce="sum", variant="code"):
    size = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    pooled = (F.adaptive_avg_pool2d(f, size) for f in (student, teacher.detach()))
    q_s, q_t = (F.normalize(_map_reference(f, p, reduce).flatten(1)) for f in pooled)
    if variant == "code":
        return (q_s - q_t).square().mean()
    return (q_s - q_t).norm(dim=1).mean() / 2


def _attention_map_spec(label, **options):
    p, largest = float(options.get("p", 2)), options.get("reduce") == "max"
    return OpSpec(
        name=f"attention_map[{label}]",
        function=partial(kdops.attention_map, **options),
        reference=partial(_map_reference, **options),
        cases=(
            Case("square", lambda make: (make.normal(3, 17, 9, 8),)),
            Case("odd", lambda make: (make.normal(2, 5, 11, 61),)),
            Case("one channel", lambda make: (make.normal(2, 1, 3, 3),)),
        ),
        small_cases=(Case("square", lambda make: (make.normal(2, 3, 2, 2),)),),
        op_calls=(
            ("attention_map", lambda make: (make.normal(2, 5, 7), p, largest)),
            (
                "attention_map_backward",
                lambda make: (make.normal(2, 7), make.normal(2, 5, 7), p, largest),
            ),
        ),
        empty_cases=(
            Case("no batch", lambda make: (make.normal(0, 3, 4, 4),)),
            Case("no channels", lambda make: (make.normal(2, 0, 4, 4),)),
            Case("no positions", lambda make: (make.normal(2, 3, 0, 4),)),
        ),
        errors=(
            ErrorCase(lambda make: (make.normal(3, 4),), ValueError, "attention_map: expected f"),
        ),
    )


_OP_OPTIONS = (3.0, False, True)  # p, largest, paper


def _attention_loss_spec(label, **options):
    return OpSpec(
        name=f"attention_loss[{label}]",
        function=partial(kdops.attention_loss, **options),
        reference=partial(_attention_reference, **options),
        cases=(
            Case("unequal channels", lambda make: two_maps(make, 3, 8, 12, (7, 6))),
            Case("pooled", lambda make: two_maps(make, 2, 5, 4, (4, 9), (8, 3))),
        ),
        small_cases=(Case("small", lambda make: two_maps(make, 2, 3, 2, (2, 3))),),
        empty_cases=(Case("no batch", lambda make: two_maps(make, 0, 3, 4, (2, 2))),),
        op_calls=(
            (
                "attention_loss",
                lambda make: (make.normal(2, 5, 7), make.normal(2, 3, 7), *_OP_OPTIONS),
            ),
            (
                "attention_loss_backward",
                lambda make: (
                    make.normal(2, 7, constant=True),
                    make.uniform(2, constant=True),
                    make.normal(2, 5, 7, constant=True),
                    *_OP_OPTIONS[:2],
                ),
            ),
        ),
        errors=(
            ErrorCase(
                lambda make: (make.normal(2, 3, 4), make.normal(2, 3, 4, 4)),
                ValueError,
                "attention_loss: expected teacher of shape",
            ),
        ),
    )


SPECS = (
    _attention_loss_spec("code"),
    _attention_loss_spec("paper, p=3", variant="paper", p=3),
    _attention_loss_spec("max", reduce="max"),
    _attention_map_spec("p=1", p=1),
    _attention_map_spec("p=2"),
    _attention_map_spec("p=2.5", p=2.5),
    _attention_map_spec("p=3, max", p=3, reduce="max"),
)
