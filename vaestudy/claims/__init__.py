"""The papers' claims: each with a test fixed before the run, an effect, an interval and a verdict.

A claim is a sentence about what training does that could come out otherwise. Its unit is an independently trained
model. What mathematics says is tested with the code, and what a machine measures gets an interval and no verdict.

`evaluate` reads one tidy table (pandas), one row a trained model:

- `part`: the experiment, whose models differ in nothing but what claims compare: `gradients, samples, overfitting,
  latents, codes` (stage 1), `sweep32, faces, sizes, paper64, ica64, dropping, spectra` (stage 2), `hierarchy, devices`
  (stage 3).
- `piece, seed, cpu`: the piece of the run, which holds every setting of a part for the same seeds on one machine; the
  model's seed; the machine.
- `record_version, metric_version`: one of each throughout.
- The settings, `vaestudy.words.SETTINGS`, empty where a model has no such thing.
- Scores: numbers under any name. A claim names those that it reads, or an expression of them.

Scores that the catalogue reads, `*_rotated` being the mean score of random rotations of the same live latents, and
`*_draws` a score of posterior draws:
`score_function_variance, pathwise_variance` (gradients); `elbo` in nats (samples, devices, hierarchy, sweep32);
`train_elbo, test_elbo` (overfitting); `live` (latents); `mig, mig_rotated` (codes); `nats` in the whole code,
`higgins_1, higgins_5, higgins_64, mig, weak_higgins_5` (sweep32; faces, sizes in part); `pca_higgins_5` beside
`higgins_5` (paper64); `higgins_5` of each ICA fit (ica64); `worth_tau` (dropping) and `error_slope` (spectra), one row
a sweep; `all_linear_r2`, `top_nats` and, for `top` and `second`, `{group}_live`, `{group}_higgins_5_draws`,
`{group}_mig_draws`, `{group}_higgins_5_rotated`, `{group}_mig_rotated` (network "hierarchy"), `higgins_5_draws`
(network "one group").
"""

from vaestudy.claims.catalogue import CATALOGUE, Claim
from vaestudy.claims.verdicts import evaluate, repeated
from vaestudy.claims.verify import VerifyResult, verify

__all__ = ["CATALOGUE", "Claim", "VerifyResult", "evaluate", "repeated", "verify"]
