"""One training iteration per method, in plain PyTorch and with kdops, and what its surcharge is.

Timed: teacher forward, student forward and backward, distiller, clip_to_main where the method has
it, SGD step, at CIFAR-size input and the published batch of 128, or on a slow machine the half or
quarter of it that keeps an iteration below ten seconds. All rows of a pair of networks are timed in
common rounds (paired.py) by the first case that runs (`Pairs`); each case, in bench_iteration.py,
then reports its own. Weights are restored and images are fresh in every round, outside the time.
"two passes" has a free distiller and a clipped second backward: over SoftTarget it is the cost of
the extra backward. The parts of KD-SVD and MHGD are timed by themselves on the nets' own maps
(parts.py). "KD-SVD held" is a step between two measurements of clip_to_main(every=n), with one
backward pass: the report makes the mean step of every=10 of it and of the KD-SVD row.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.cases import models
from benchmarks.measure import paired, parts
from benchmarks.published import distillers as published
from kdops import distillers
from kdops.training import clip_to_main, forget_factor

BATCH = 128  # the published one
PROBE, LONGEST = 16, 10.0  # images that foretell an iteration's time; its seconds at most
METHODS = ("Student", "SoftTarget", "FitNet", "FSP", "DML", "AB", "RKD", "MHGD", "KD-SVD", "IEP")
HELD = "KD-SVD held"
ROWS = (*METHODS, "two passes", HELD, *parts.PARTS)
CLIPPED = ("MHGD", "KD-SVD", "IEP", "two passes")
SIDES = ("published", "kdops")
TOLERANCE = 1e-2  # relative, of the two sides' losses
BUDGET = 130.0  # seconds of rounds per pair: 7 of the small pair's
LEAST, MOST = 3, 15


@dataclass
class Setting:
    """Nets of one pair, their weights, and the methods prepared on the teacher's maps."""

    teacher: models.Net
    student: models.Net
    kept: list[dict[str, torch.Tensor]]
    device: str
    losses: dict[tuple[str, str], tuple]  # (method, side) -> (function, module or None)
    mhgd: distillers.MHGD
    batch: int = BATCH
    agreement: dict[str, float] = field(default_factory=dict)  # difference of the sides' losses

    def restore(self):
        for net, state in zip((self.teacher, self.student), self.kept, strict=True):
            net.load_state_dict(state)


def _images(device, seed, count):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 32, 32, generator=generator)
    target = torch.randint(0, 100, (count,), generator=generator)
    return images.to(device), target.to(device)


class Pairs:
    """The pair of networks whose cases are running: its setting, and the times of its rows."""

    def __init__(self):
        self.key, self.state, self.table = None, None, None

    def setting(self, pair, device):
        if self.key != (pair, device):
            self.key, self.state, self.table = (pair, device), setting(pair, device), None
        return self.state

    def timed(self, pair, device, rows, quick):
        """(method, side) -> Timed, of all rows of the session."""
        state = self.setting(pair, device)
        if self.table is None:
            self.table = table(state, rows, quick)
        return self.table


def setting(pair, device):
    """Networks that have seen images, and every method prepared on them."""
    torch.manual_seed(0)
    teacher, student = (net.to(device) for net in models.PAIRS[pair]())
    with torch.no_grad():  # running statistics
        for net in (teacher, student):
            net(_images(device, 0, BATCH)[0])
    teacher.eval()
    kept = [{k: v.clone() for k, v in n.state_dict().items()} for n in (teacher, student)]
    with torch.no_grad():
        outputs = [net(_images(device, 1, BATCH)[0]) for net in (student, teacher)]
    losses, mhgd = _losses(*outputs)
    state = Setting(teacher, student, kept, device, losses, mhgd)
    state.batch = _batch(state)
    state.restore()
    return state


def _batch(state):
    """BATCH, halved until the dearest method, which trains both nets, needs LONGEST or less."""
    step = partial(_mutual_iteration, state, "published", *_images(state.device, 0, PROBE))
    step()
    seconds = paired.seconds(step, state.device) / PROBE
    batch = BATCH
    while batch > PROBE and seconds * batch > LONGEST:
        batch //= 2
    return batch


def _losses(s, t):
    """(method, side) -> (loss of two outputs, the method's module); MHGD. s, t: sample outputs."""
    fitnet = distillers.FitNet.from_sample(s.maps, t.maps)
    ab = distillers.ActivationBoundary.from_sample(s.pre, t.pre)
    mhgd = distillers.MHGD.from_sample(s.maps, t.maps)
    iep = distillers.IEP.from_sample(s.maps, t.maps)
    for method in (mhgd, iep):
        with torch.enable_grad():
            method.prepare([t.maps], epochs=1)
        method.requires_grad_(False)
    rows = {
        "SoftTarget": ("logits", published.soft_target, distillers.SoftTarget(), None),
        "FitNet": ("maps", published.fitnet(fitnet), fitnet, fitnet),
        "FSP": ("maps", published.fsp, lambda s, t: distillers.FSP()(s, t), None),
        "AB": ("pre", published.activation_boundary(ab), ab, ab),
        "RKD": ("embedding", published.rkd, distillers.RKD(), None),
        "MHGD": ("maps", published.mhgd(mhgd), mhgd, None),
        "KD-SVD": ("maps", published.kdsvd, distillers.KDSVD(), None),
        "IEP": ("maps", published.iep(iep), iep, None),
        HELD: ("maps", published.kdsvd, distillers.KDSVD(), None),
        "two passes": ("maps", _free, _free, None),
    }
    losses = {
        (name, side): (_reading(where, loss), module)
        for name, (where, *both, module) in rows.items()
        for side, loss in zip(SIDES, both, strict=True)
    }
    return losses, mhgd


def _reading(where, loss):
    return lambda s, t: loss(getattr(s, where), getattr(t, where))


def _free(student, teacher):
    return torch.stack([s.mean() for s in student]).sum()


def iteration(state, method, side, images, target):
    """One training step."""
    student, teacher = state.student, state.teacher
    loss, module = state.losses.get((method, side), (None, None))
    free = [] if module is None else [p for p in module.parameters() if p.requires_grad]
    parameters = [*student.parameters(), *free]
    if method == "DML":
        return _mutual_iteration(state, side, images, target)
    for p in parameters:
        p.grad = None
    output = student(images)
    main = F.cross_entropy(output.logits, target)
    if method == "Student":
        main.backward()
    else:
        with torch.no_grad():
            known = teacher(images)
        if method in CLIPPED:
            clip_to_main(main, loss(output, known), student.parameters(), free=free)
        elif method == HELD:
            clip_to_main(main, loss(output, known), student.parameters(), per="global", every=10)
        else:
            (main + loss(output, known)).backward()
    torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4).step()
    return main.detach()


def _mutual_iteration(state, side, images, target):
    """Deep mutual learning: both nets learn."""
    nets = (state.student, state.teacher.train())
    parameters = [p for net in nets for p in net.parameters()]
    for p in parameters:
        p.grad = None
    logits = [net(images).logits for net in nets]
    mutual = distillers.DeepMutual() if side == "kdops" else published.mutual
    mutual(logits, target).backward()
    torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4).step()
    state.teacher.eval()
    return logits[0].detach()


def table(state, rows, quick):
    """Times these (method, side), but for methods whose two sides do not agree."""
    runs = {
        (method, side): _run(state, method, side)
        for method, side in rows
        if (agreement(state, method) or 0.0) <= TOLERANCE
    }
    return paired.measure(runs, state.device, BUDGET, LEAST, LEAST if quick else MOST)


def _run(state, method, side):
    """What a row times. Images of a seed are the same for all rows: a round's are comparable."""
    part = parts.gradient(method, side, state.mhgd) if method in parts.PARTS else None

    def arguments(seed):
        state.restore()
        images, target = _images(state.device, 10 + seed, state.batch)
        if method == HELD:  # the step that measures the factor is not the one that is timed
            forget_factor(state.student.parameters())
            iteration(state, method, side, images, target)
            state.restore()
        if part is None:
            return state, method, side, images, target
        with torch.no_grad():
            maps = state.student(images).maps, state.teacher(images).maps
        return parts.leaves(method, *maps)

    return paired.Run(part or iteration, arguments)


def agreement(state, method):
    """Relative difference of the two sides' losses: they must be the same method. None: a part."""
    if method in parts.PARTS:
        return None
    if method not in state.agreement:
        state.agreement[method] = _agreement(state, method)
    return state.agreement[method]


def _agreement(state, method):
    if (method, "kdops") not in state.losses:
        return 0.0
    state.restore()
    images = _images(state.device, 5, state.batch)[0]
    with torch.no_grad():
        outputs = state.student(images), state.teacher(images)
        plain, ours = (state.losses[method, side][0](*outputs).item() for side in SIDES)
    state.restore()
    return abs(plain - ours) / max(abs(plain), 1e-12)
