"""The list of claims, fixed before the run: what each says, who says it, and the test that decides it.

The primary claims of a page are one family, its secondary ones another, the devices of NVAE a third. Margins and
settings were chosen on other seeds than those that judge.
"""

from dataclasses import dataclass

from vaestudy.claims.choices import BestMoves, BestOf, Chosen
from vaestudy.claims.forms import Above, AllOf, Form, OnCurve, Positive, Slope
from vaestudy.claims.records import Where, setting


@dataclass(frozen=True)
class Claim:
    """A sentence about what training does, which could come out otherwise, with its test.

    The test rejects "effect <= -margin" in favour of a greater effect, or the mirror image in favour of a smaller one.
    `unit`: what the effect is counted in. `models`: how many of each setting were planned. `free`: settings in which
    the models compared may differ although the test does not name them (widths that make the weights agree).
    """

    id: str
    sentence: str
    source: str
    test: Form
    unit: str
    models: int
    page: str
    primary: bool = False
    free: tuple[str, ...] = ()
    group: str = ""

    @property
    def margin(self) -> float | None:
        """How far below 0 the effect of an "enough", "no worse" or "as well" may lie, in `unit`; else None."""
        return self.test.margin or None

    @property
    def family(self) -> str:
        """The claims that Holm's rule takes together."""
        return self.group or f"{self.page} {'primary' if self.primary else 'secondary'}"


VAE, BETA, NVAE = "01_vae", "02_beta_vae", "03_nvae"
SWEEP, FACES, SIZES = setting(part="sweep32", latent_dim=10), setting(part="faces"), setting(part="sizes")
PAPER, ICA = setting(part="paper64"), setting(part="ica64")
ALL_DEVICES = setting(part="devices", without="nothing")
ONE_GROUP = setting(part="hierarchy", network="one group")
BATCHES = [setting(part="samples", batch_size=100, samples=count) for count in (1, 10)]
OVERFIT = [setting(part="overfitting", train_size=2_000, latent_dim=size) for size in (10, 50)]
LATENTS = [setting(part="latents", latent_dim=size) for size in (20, 50)]


def hierarchy(schedule: str, **values) -> Where:
    """The hierarchical network under one schedule of its groups' prices during the warm-up."""
    return setting(part="hierarchy", network="hierarchy", schedule=schedule, **values)


def top_share(schedule: str) -> Slope:
    """The top group's share of the nats over log β; .05 for a factor e of β is the least that counts as moving."""
    return Slope(hierarchy(schedule), "top_nats / nats", enough=0.05, held=0.5)


def alignment(group: str, score: str) -> AllOf:
    """A group's draws score above their random rotations at β = 16, by more than at β = 1; 0 without live latents."""
    gain = f"({group}_{score}_draws - {group}_{score}_rotated) * ({group}_live > 0)"
    low, high = (hierarchy("top_first", beta=beta) for beta in (1, 16))
    return AllOf((Positive(high, gain), Above(high, low, gain)))


SWITCHED_OFF = AllOf(
    tuple(Above(a, b, "live", margin=1.0) for a, b in (LATENTS, LATENTS[::-1]))
    + tuple(Positive(where, value) for where in LATENTS for value in ("live", "20 - live"))
)

AEVB, HIGGINS, BURDA = "Kingma & Welling 2014", "Higgins et al. 2017", "Burda et al. 2016"
MIG = f"after {HIGGINS}; score of Chen et al. 2018"
BURGESS, VAHDAT, VAFAII, STUDY = "Burgess et al. 2018", "Vahdat & Kautz 2020", "Vafaii et al. 2023", "this study"
RISE, FALL = "β > 1 disentangles better than β = 1", "Beyond the best β the score falls again"

# fmt: off
DEVICES = ("residual distributions", "depthwise cells", "squeeze-and-excitation", "batch norm with Swish",
           "spectral regularisation")
CATALOGUE = (
    Claim("1.1", "The pathwise gradient varies less than the score function's, ten times at least", f"{AEVB}, 2.2",
          Positive(setting(part="gradients"), "log10(score_function_variance / pathwise_variance) - 1"),
          "powers of ten", 10, VAE, True),
    Claim("1.2", "One noise sample is enough at batches of 100", f"{AEVB}, 2.3",
          Above(*BATCHES, "elbo", margin=1.0), "nats", 20, VAE, True),
    Claim("1.3", "Superfluous latents do not overfit", f"{AEVB}, 5",
          Above(*OVERFIT, "train_elbo - test_elbo", margin=1.0), "nats", 10, VAE, True),
    Claim("1.4", "Unused latents switch off: within one, as many live at M = 50 as at M = 20", BURDA,
          SWITCHED_OFF, "latents within the bounds", 20, VAE, True),
    Claim("1.5", "Uncorrelated is not disentangled: codes score above their random rotations (MIG)", HIGGINS,
          Positive(setting(part="codes", beta=1), "mig - mig_rotated"), "score", 10, VAE, True),

    Claim("2.1", f"{RISE} (Higgins score, L = 5)", f"{HIGGINS}, figure 6, table 2",
          BestOf(SWEEP, "higgins_5"), "score", 20, BETA, True),
    Claim("2.2", f"{FALL} (Higgins score, L = 5)", f"{HIGGINS}, figure 6",
          BestOf(SWEEP, "higgins_5", held=1.0), "score", 20, BETA, True),
    Claim("2.3", f"{RISE} (MIG)", MIG, BestOf(SWEEP, "mig"), "score", 20, BETA, True),
    Claim("2.4", f"{FALL} (MIG)", MIG, BestOf(SWEEP, "mig", held=1.0), "score", 20, BETA, True),
    Claim("2.5", "β-VAE scores above PCA", f"{HIGGINS}, table 2",
          Chosen(PAPER, by="higgins_5", value="higgins_5 - pca_higgins_5"), "score", 20, BETA, True),
    Claim("2.6", f"{RISE} (Higgins score, L = 1)", f"after {HIGGINS}", BestOf(SWEEP, "higgins_1"), "score", 20, BETA),
    Claim("2.7", f"{RISE} (Higgins score, L = 64)", f"after {HIGGINS}", BestOf(SWEEP, "higgins_64"), "score", 20, BETA),
    Claim("2.8", f"{RISE} on rendered faces too (Higgins score, L = 5, and MIG)", HIGGINS,
          AllOf((BestOf(FACES, "higgins_5"), BestOf(FACES, "mig"))), "score", 10, BETA),
    Claim("2.9", "Larger latents need more normalised pressure: the best β grows with M", f"{HIGGINS}, figure 6",
          BestMoves(SIZES, "higgins_5"), "log β per log M", 10, BETA),
    Claim("2.10", "Choosing β by the bound costs score", f"{HIGGINS}, 4.3",
          Chosen(SWEEP, by="higgins_5", value="higgins_5", rival="elbo", base=1.0), "score", 20, BETA),
    Claim("2.11", "β-VAE scores above ICA", f"{HIGGINS}, table 2",
          Chosen(PAPER, by="higgins_5", value="higgins_5", fits=ICA), "score", 20, BETA),
    Claim("2.12", "β chosen from weak labels beats β = 1", f"{HIGGINS}, 4.3",
          Chosen(SWEEP, by="weak_higgins_5", value="higgins_5", base=1.0), "score", 20, BETA),
    Claim("2.13", "Pressure drops factors in the order of their worth in nats", BURGESS,
          Positive(setting(part="dropping"), "worth_tau"), "Kendall's tau", 10, BETA),
    Claim("2.14", "Pressure is paid in high frequencies: the error grows by the larger factor there",
          f"this study, after {HIGGINS}",
          Positive(setting(part="spectra"), "error_slope"), "log error per log frequency", 10, BETA),

    Claim("3.1", "A hierarchy has the better bound", VAHDAT,
          Above(hierarchy("balance", beta=1), (*ONE_GROUP, ("beta", 1)), "elbo"), "nats", 8, NVAE, True, ("width",)),
    Claim("3.2", "Where lower groups are charged more at first, pressure moves the code to the top group", STUDY,
          top_share("top_first"), "share per log β", 8, NVAE, True),
    Claim("3.3", "And the top group is then disentangled, not only filled (Higgins score, L = 5)", STUDY,
          alignment("top", "higgins_5"), "score", 10, NVAE, True),
    Claim("3.4", "The top group disentangles as well as a flat code of the same rate (Higgins score, L = 5)", STUDY,
          OnCurve(hierarchy("top_first", beta=16), "top_higgins_5_draws", "top_nats",
                  curve=ONE_GROUP, curve_value="higgins_5_draws", margin=0.05),
          "score", 10, NVAE, True, ("width",)),
    Claim("3.5", "All groups together are read best below β = 1 (linear R²)", VAFAII,
          BestOf(hierarchy("none"), "all_linear_r2", base=0.15, least=1.0, contrary=True), "R²", 8, NVAE, True),
    Claim("3.6", "Without a schedule too, pressure moves the code to the top group", STUDY,
          top_share("none"), "share per log β", 8, NVAE),
    Claim("3.7", "Under NVAE's balancing too, pressure moves the code to the top group", STUDY,
          top_share("balance"), "share per log β", 8, NVAE),
    Claim("3.8", "The top group is disentangled, not only filled (MIG)", STUDY,
          alignment("top", "mig"), "score", 10, NVAE),
    Claim("3.9", "The group below is disentangled, not only filled (Higgins score, L = 5)", STUDY,
          alignment("second", "higgins_5"), "score", 10, NVAE),
    *(Claim(f"3.{i}", f"This device of NVAE helps the bound: {name}", VAHDAT,
            Above(ALL_DEVICES, setting(part="devices", without=name), "elbo"),
            "nats", 8, NVAE, group="NVAE's devices") for i, name in enumerate(DEVICES, 10)),
)
# fmt: on
