"""Distillation methods as nn.Modules: ``loss = method(student_features, teacher_features)``.

The abbreviations of the papers are known too: KD (SoftTarget), AT (AttentionTransfer), SP
(SimilarityPreserving), AB (ActivationBoundary), OFD (Overhaul), DML (DeepMutual). ``table()`` is
the one of docs/methods.md: what each takes, and with which layout, mask and weight.
"""

import difflib

from kdops.distillers._table import markdown as _markdown
from kdops.distillers.activation_boundary import ActivationBoundary
from kdops.distillers.attention import AttentionTransfer
from kdops.distillers.deep_mutual import DeepMutual
from kdops.distillers.ensemble import OnTheFlyEnsemble
from kdops.distillers.factor_transfer import FactorTransfer
from kdops.distillers.fitnet import FitNet
from kdops.distillers.fsp import FSP
from kdops.distillers.iep import IEP
from kdops.distillers.kdsvd import KDSVD
from kdops.distillers.mhgd import MHGD
from kdops.distillers.nst import NST
from kdops.distillers.overhaul import Overhaul
from kdops.distillers.rkd import RKD
from kdops.distillers.similarity import SimilarityPreserving
from kdops.distillers.soft_target import BornAgain, SoftTarget, TeacherAssistant
from kdops.distillers.vid import VID
from kdops.distillers.weighted_sum import WeightedSum
from kdops.distillers.without_forgetting import LearningWithoutForgetting

KD, AT, SP = SoftTarget, AttentionTransfer, SimilarityPreserving
AB, OFD, DML = ActivationBoundary, Overhaul, DeepMutual

__all__ = [
    "FSP",
    "IEP",
    "KDSVD",
    "MHGD",
    "NST",
    "RKD",
    "VID",
    "ActivationBoundary",
    "AttentionTransfer",
    "BornAgain",
    "DeepMutual",
    "FactorTransfer",
    "FitNet",
    "LearningWithoutForgetting",
    "OnTheFlyEnsemble",
    "Overhaul",
    "SimilarityPreserving",
    "SoftTarget",
    "TeacherAssistant",
    "WeightedSum",
]


def table() -> str:
    """What every method takes, in markdown."""
    return _markdown(globals()[name] for name in sorted(__all__, key=str.lower))


def __getattr__(name: str) -> object:
    """An AttributeError that knows what was meant."""
    known = {key.lower(): key for key in [*__all__, "KD", "AT", "SP", "AB", "OFD", "DML"]}
    near = difflib.get_close_matches(name.lower().replace("_", ""), list(known), n=3)
    hint = f"; did you mean {' or '.join(known[key] for key in near)}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
