"""Distillation methods as nn.Modules: ``loss = method(student_features, teacher_features)``.

The abbreviations of the papers are known too: KD (SoftTarget), AT (AttentionTransfer), SP
(SimilarityPreserving), AB (ActivationBoundary), OFD (Overhaul), DML (DeepMutual). ``table()`` is
the one of docs/methods.md: what each takes, and with which layout, mask and weight.
``recipe(name)`` is the sum of soft targets and a method that a zoo's script trains; ``recipes()``
lists them.
"""

import difflib

from kdops.distillers._recipes import recipe as recipe
from kdops.distillers._recipes import recipes as recipes
from kdops.distillers._table import markdown as _markdown
from kdops.distillers.activation_boundary import ActivationBoundary
from kdops.distillers.attention import AttentionTransfer
from kdops.distillers.cat import CATKD
from kdops.distillers.channelwise import CWD
from kdops.distillers.cka import CKA
from kdops.distillers.correlation import CC
from kdops.distillers.crd import CRD
from kdops.distillers.darkrank import DarkRank
from kdops.distillers.deep_mutual import DeepMutual
from kdops.distillers.dist import DIST
from kdops.distillers.dkd import DKD
from kdops.distillers.ensemble import OnTheFlyEnsemble
from kdops.distillers.factor_transfer import FactorTransfer
from kdops.distillers.fitnet import FitNet
from kdops.distillers.fsp import FSP
from kdops.distillers.gram_anchoring import GramAnchoring
from kdops.distillers.ickd import ICKD
from kdops.distillers.iep import IEP
from kdops.distillers.irg import IRG
from kdops.distillers.kdsvd import KDSVD
from kdops.distillers.kta import KTA
from kdops.distillers.mhgd import MHGD
from kdops.distillers.mlkd import MLKD
from kdops.distillers.nst import NST
from kdops.distillers.overhaul import Overhaul
from kdops.distillers.pkd import PKD
from kdops.distillers.pkt import PKT
from kdops.distillers.procrustes import Procrustes
from kdops.distillers.relation_kl import RelationKL
from kdops.distillers.review import ReviewKD
from kdops.distillers.rkd import RKD
from kdops.distillers.rsd import RSD
from kdops.distillers.similarity import SimilarityPreserving
from kdops.distillers.skd import SKDDirection
from kdops.distillers.soft_target import BornAgain, SoftTarget, TeacherAssistant
from kdops.distillers.srd import SRD
from kdops.distillers.subspace import Subspace
from kdops.distillers.vid import VID
from kdops.distillers.weighted_sum import WeightedSum
from kdops.distillers.without_forgetting import LearningWithoutForgetting
from kdops.distillers.wsld import WSLD

KD, AT, SP = SoftTarget, AttentionTransfer, SimilarityPreserving
AB, OFD, DML = ActivationBoundary, Overhaul, DeepMutual

__all__ = [
    "CATKD",
    "CC",
    "CKA",
    "CRD",
    "CWD",
    "DIST",
    "DKD",
    "FSP",
    "ICKD",
    "IEP",
    "IRG",
    "KDSVD",
    "KTA",
    "MHGD",
    "MLKD",
    "NST",
    "PKD",
    "PKT",
    "RKD",
    "RSD",
    "SRD",
    "VID",
    "WSLD",
    "ActivationBoundary",
    "AttentionTransfer",
    "BornAgain",
    "DarkRank",
    "DeepMutual",
    "FactorTransfer",
    "FitNet",
    "GramAnchoring",
    "LearningWithoutForgetting",
    "OnTheFlyEnsemble",
    "Overhaul",
    "Procrustes",
    "RelationKL",
    "ReviewKD",
    "SKDDirection",
    "SimilarityPreserving",
    "SoftTarget",
    "Subspace",
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
