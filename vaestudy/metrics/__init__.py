"""Codes and factors in, numbers out: disentanglement, dependence, likelihood, and the baselines beside them."""

from vaestudy.metrics.baselines import LinearCode, factor_codes, ica, noise_codes, pca, rotated
from vaestudy.metrics.card import Score, score_card, scores
from vaestudy.metrics.information import (
    Wasserstein,
    entropy,
    irs,
    mig,
    modularity,
    mutual_information,
    total_correlation,
    wasserstein_dependence,
)
from vaestudy.metrics.likelihood import (
    active_units,
    bits_per_dim,
    importance_weighted_bound,
    importance_weighted_ladder,
)
from vaestudy.metrics.predict import DCI, dci, explicitness, sap
from vaestudy.metrics.readout import correlation, information_shares, readout
from vaestudy.metrics.table import Table
from vaestudy.metrics.udr import UDR, udr
from vaestudy.metrics.votes import (
    HigginsReport,
    factor_vae_score,
    factor_vae_votes,
    higgins_curve,
    higgins_report,
    higgins_score,
)

__all__ = [
    "DCI",
    "UDR",
    "HigginsReport",
    "LinearCode",
    "Score",
    "Table",
    "Wasserstein",
    "active_units",
    "bits_per_dim",
    "correlation",
    "dci",
    "entropy",
    "explicitness",
    "factor_codes",
    "factor_vae_score",
    "factor_vae_votes",
    "higgins_curve",
    "higgins_report",
    "higgins_score",
    "ica",
    "importance_weighted_bound",
    "importance_weighted_ladder",
    "information_shares",
    "irs",
    "mig",
    "modularity",
    "mutual_information",
    "noise_codes",
    "pca",
    "readout",
    "rotated",
    "sap",
    "score_card",
    "scores",
    "total_correlation",
    "udr",
    "wasserstein_dependence",
]
