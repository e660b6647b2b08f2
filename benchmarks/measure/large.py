"""A training iteration at 224 pixels: the student's own step, and what KD-SVD and MHGD add to it.

All rows of a pair run in common rounds (paired.py) on the same images and weights. "student" is its
own step; "teacher" is that and the teacher's forward, which every method needs; the methods add
their loss, connectors included, to one backward pass, or by clip_to_main. The surcharge of a method
is over "teacher", in units of the student's step (report/bars.py). "maps: ..." is the loss and its
gradient by itself on maps that are there: its peak memory, over the bytes of these maps, is what a
method takes.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from benchmarks.cases import models
from benchmarks.measure import paired
from kdops import distillers
from kdops.training import clip_to_main

BATCH, COUNT = 8, 4  # images; singular vectors of KD-SVD
METHODS = ("KD-SVD", "MHGD")
ROWS = (
    "student", "teacher", "KD-SVD", "KD-SVD, clipped", "MHGD",
    *(f"maps: {m}" for m in METHODS),
)  # fmt: skip
BUDGET, LEAST, MOST = 60.0, 3, 9  # seconds of rounds per pair
TOLERANCE = 1e-2  # relative, of a loss in float32 to that in float64


@dataclass
class Setting:
    """Networks that have seen images, their weights, and the methods, MHGD prepared."""

    teacher: torch.nn.Module
    student: torch.nn.Module
    kept: dict[str, torch.Tensor]
    methods: dict[str, torch.nn.Module]
    maps: tuple[list[torch.Tensor], list[torch.Tensor]]  # of one batch, the student's first
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def maps_mb(self) -> float:
        return sum(x.nbytes for side in self.maps for x in side) / 2**20


class Pairs:
    """The pair whose cases are running: its setting, and the times of its rows."""

    def __init__(self):
        self.pair, self.state, self.table = None, None, None

    def setting(self, pair):
        if self.pair != pair:
            self.pair, self.state, self.table = pair, setting(models.LARGE[pair]), None
        return self.state

    def timed(self, pair, rows):
        state = self.setting(pair)
        if self.table is None:
            runs = {row: _run(state, row) for row in rows}
            self.table = paired.measure(runs, "cpu", BUDGET, LEAST, MOST)
        return self.table


def setting(make):
    torch.manual_seed(0)
    teacher, student = make()
    with torch.no_grad():
        for net in (teacher, student):  # running statistics
            net(_images(0)[0])
        teacher.eval()
        s, t = (net(_images(1)[0])[1] for net in (student, teacher))
    methods = {
        "KD-SVD": distillers.KDSVD.from_sample(s, t, k=COUNT),
        "MHGD": distillers.MHGD.from_sample(s, t),
    }
    with torch.enable_grad():
        methods["MHGD"].prepare([t], epochs=1, progress=False)
    kept = {k: v.clone() for k, v in student.state_dict().items()}
    return Setting(teacher, student, kept, methods, (s, t))


def _images(seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, 224, 224, generator=generator)
    return images, torch.randint(0, 100, (BATCH,), generator=generator)


def error(state, row):
    """Of the row's loss on the setting's maps against float64; None for a row without a method."""
    name = row.removeprefix("maps: ").removesuffix(", clipped")
    if name not in METHODS:
        return None
    if name not in state.errors:
        method = state.methods[name]
        with torch.no_grad():
            ours = method(*state.maps).item()
            exact = method.double()(*([x.double() for x in side] for side in state.maps)).item()
        method.float()
        state.errors[name] = abs(ours - exact) / abs(exact)
    return state.errors[name]


def _run(state, row):
    name = row.removeprefix("maps: ").removesuffix(", clipped")
    if row.startswith("maps: "):
        return paired.Run(_loss_alone, lambda seed: _leaves(state, name))

    def arguments(seed):
        state.student.load_state_dict(state.kept)
        return state, name, row.endswith("clipped"), *_images(10 + seed)

    return paired.Run(iteration, arguments)


def _leaves(state, name):
    s, t = state.maps
    return state.methods[name], [x.detach().requires_grad_() for x in s], t


def _loss_alone(method, student, teacher):
    own = [p for p in method.parameters() if p.requires_grad]
    torch.autograd.grad(method(student, teacher), [*student, *own], allow_unused=True)


def iteration(state, name, clipped, images, target):
    """One training step; name: a method, "teacher" or "student"."""
    method = state.methods.get(name)
    free = [] if method is None else [p for p in method.parameters() if p.requires_grad]
    parameters = [*state.student.parameters(), *free]
    for p in parameters:
        p.grad = None
    logits, maps = state.student(images)
    main = F.cross_entropy(logits, target)
    known = None
    if name != "student":
        with torch.no_grad():
            known = state.teacher(images)[1]
    if method is None:
        main.backward()
    elif clipped:
        clip_to_main(main, method(maps, known), state.student.parameters(), free=free)
    else:
        (main + method(maps, known)).backward()
    torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4).step()
