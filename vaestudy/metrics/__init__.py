"""Codes and factors in, numbers out: disentanglement, dependence, bounds, and the baselines beside them."""
# ruff: noqa: F401 - what is imported here is what the package offers

from vaestudy.metrics.baselines import LinearCode, factor_codes, ica, independent_seeds, noise_codes, pca, rotated
from vaestudy.metrics.bounds import active_units, bits_per_dim, importance_weighted_ladder
from vaestudy.metrics.card import METRICS, Score, rotation_score, score_card, scores
from vaestudy.metrics.information import infomec, information_shares, irs, mig, mig_sup, modularity, total_correlation
from vaestudy.metrics.predict import DCI, DCIES, ReadOut, angle_r2, dci, dci_es, explicitness, knn_r2, read_out, sap
from vaestudy.metrics.table import Table, correlation, live, mean_correlation, varies, whitened
from vaestudy.metrics.udr import udr
from vaestudy.metrics.votes import HigginsReport, factor_vae_score, higgins_curve, higgins_score
