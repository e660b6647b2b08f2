"""Pictures of the knowledge that methods move, made of features with matplotlib.

Every function takes features by network, {"teacher": levels, "student": levels, ...} with the
teacher first, and returns a matplotlib Figure: figure.savefig("picture.png"). pyplot is not used.
`python -m kdops pictures --out DIR` draws all of them on the demo's networks.
"""

from kdops.pictures.attention import attention_maps
from kdops.pictures.graphs import iep_graphs, mhgd_graphs
from kdops.pictures.likelihood import vid_heat_maps
from kdops.pictures.matrices import fsp_matrices, similarity_matrices
from kdops.pictures.outputs import channel_correlations, class_probabilities
from kdops.pictures.relations import rkd_histograms
from kdops.pictures.singular import singular_vector_maps, spectra

__all__ = [
    "attention_maps",
    "channel_correlations",
    "class_probabilities",
    "fsp_matrices",
    "iep_graphs",
    "mhgd_graphs",
    "rkd_histograms",
    "similarity_matrices",
    "singular_vector_maps",
    "spectra",
    "vid_heat_maps",
]
