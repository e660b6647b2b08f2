"""Distillation methods as nn.Modules: ``loss = method(student_features, teacher_features)``."""

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
