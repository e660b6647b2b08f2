"""One OpSpec per public op, from every <room>.py of this folder: each gets the whole contract.

References are written out in plain PyTorch there or in the op's reference.py, never through the
kernels.
"""

from importlib import import_module
from pkgutil import iter_modules

ROOMS = sorted(module.name for module in iter_modules(__path__))
SPECS = tuple(spec for room in ROOMS for spec in import_module(f"{__name__}.{room}").SPECS)
