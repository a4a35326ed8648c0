"""Codes and factors in, numbers out: disentanglement, dependence, likelihood, and the baselines beside them."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.metrics.baselines import LinearCode, factor_codes, ica, noise_codes, pca, rotated
from vaestudy.metrics.card import METRICS, Metric, Score, score_card, scores
from vaestudy.metrics.dci import DCI, DCIES, dci, dci_es
from vaestudy.metrics.factor_vae import factor_vae_score, factor_vae_votes
from vaestudy.metrics.higgins import HigginsReport, higgins_curve, higgins_report, higgins_score
from vaestudy.metrics.infomec import InfoMEC, infomec
from vaestudy.metrics.information import entropy, information_shares, mig, mig_sup, modularity, mutual_information
from vaestudy.metrics.likelihood import (
    active_units,
    bits_per_dim,
    importance_weighted_bound,
    importance_weighted_ladder,
)
from vaestudy.metrics.moments import Wasserstein, correlation, irs, total_correlation, wasserstein_dependence
from vaestudy.metrics.predict import explicitness, knn_r2, sap
from vaestudy.metrics.references import known_factors_score, live, rotation_score, whitened
from vaestudy.metrics.table import Table, varies
from vaestudy.metrics.udr import UDR, udr
