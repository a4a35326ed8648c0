"""The loop over the steps of one or many models: the log, checkpoints, ways back, and the record at the end."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.stopping import Terminated, stop_requests
from vaestudy.training import checkpoint, distributed, memory
from vaestudy.training.config import learning_rate, set_learning_rate
from vaestudy.training.progress import progress_bar
from vaestudy.training.provenance import device_name, provenance
from vaestudy.training.run import Job, describe
from vaestudy.training.steps import Step

logger = logging.getLogger(__name__)
CHECKPOINT_SECONDS = {"cpu": 30.0, "cuda": 300.0}  # between two of them
CHECKPOINT_SHARE = 0.02  # of the time, at most, goes into writing them
MOST_SKIPPED_IN_A_ROW, MOST_ROLLBACKS = 100, 3
STATE = ("step", "taken", "rollbacks", "seconds", "totals", "counted", "kept")  # beside that of the step
# Of the last line of the log.
RECORDED = ("images_seen", "nll_nats", "kl_nats", "elbo_nats", "steps_skipped", "rollbacks", "scaling_efficiency")
STEPS_ALONE = 3  # of each process by itself that are timed, after one that is not
KEPT_STATES = 10  # that a training takes on its way to go back to, at fixed numbers of images


class Diverged(InputError):
    """A training whose numbers are not finite any more."""


class Loop:
    """Steps until all images are seen, with a log and checkpoints between them, and a record in each job's run.

    After MOST_SKIPPED_IN_A_ROW steps that were left out a single model goes back to a state that it had after a fixed
    number of images, and on with half the learning rate, at most MOST_ROLLBACKS times. Of many models those whose
    numbers are not finite are left behind without a record. Checkpoints go into `folder`.
    """

    def __init__(self, take_step: Step, jobs: Sequence[Job], folder: Path):
        self.take_step, self.jobs, self.folder = take_step, jobs, folder
        self.runs, self.training = [job.run for job in jobs], take_step.training
        self.checkpoint_seconds = CHECKPOINT_SECONDS.get(take_step.device.type, 300.0)
        self.batch = min(self.training.batch, len(take_step.images))
        self.steps = math.ceil(self.training.images / self.batch)
        self.log_steps = max(1, self.training.log_every // self.batch)
        self.keep_steps = self.log_steps * math.ceil(self.steps / self.log_steps / KEPT_STATES)
        self.step, self.taken, self.rollbacks, self.seconds = 0, 0, 0, 0.0  # taken: with those that were taken again
        self.totals, self.counted, self.kept = None, None, None  # sums of a line of the log; a state to go back to
        self.seconds_alone: float | None = None  # of a step for which no process waits for another

    def run(self) -> None:
        """Train from the start, or from where an interruption has left it."""
        for job in self.jobs if self.take_step.writes else []:
            write_json(job.run.path / "config.json", describe(job.model, job.images, job.training))
        if self.take_step.processes > 1:
            distributed.barrier()
        self.resume()
        self.last_line = self.step, self.seconds
        images = self.batch * len(self.runs)
        with progress_bar(self.jobs, self.steps * images, self.step * images) as bar, stop_requests() as requested:
            self.began = time.perf_counter()
            self.due = self.began + self.checkpoint_seconds
            while self.step < self.steps:
                self.advance()
                if self.step % self.log_steps == 0 or self.step == self.steps:
                    self.log()
                bar.update(self.step * images - bar.n)
                self.save_or_stop(requested)
            self.save()
        if self.take_step.writes:
            self.finalize()

    def save_or_stop(self, requested: Sequence[type[BaseException]]) -> None:
        """A checkpoint if one is due, and the last one where an end is requested."""
        now, stop, several = time.perf_counter(), bool(requested), self.take_step.processes > 1
        if several:  # they end after the same step, whichever was told
            stop = distributed.anywhere(stop)
        if now > self.due or stop:
            self.save()
            saved = time.perf_counter()
            self.due = saved + max(self.checkpoint_seconds, (saved - now) / CHECKPOINT_SHARE)
        if stop:
            if several:  # torchrun ends all once one has left, and one still saves
                distributed.barrier()
            end = requested[0] if requested else Terminated
            raise end(f"stopped after {self.step * self.batch:,} images: the same command goes on there")

    def advance(self) -> None:
        """One step; what is not finite stays out of the means of the log."""
        set_learning_rate(self.take_step.optimizer, self.rate(self.step))
        terms = self.take_step(self.step, self.step / self.steps)
        finite = terms.isfinite().all(1, keepdim=True)
        if self.totals is None:
            self.totals, self.counted = torch.zeros_like(terms), torch.zeros_like(terms[:, :1])
        self.totals += torch.where(finite, terms, 0)
        self.counted += finite
        self.step, self.taken = self.step + 1, self.taken + 1

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.training, step / self.steps) * 0.5**self.rollbacks

    def log(self) -> None:
        """A line for each run: means since the line before, in nats per image."""
        self.seconds += time.perf_counter() - self.began
        if self.take_step.processes > 1 and self.seconds_alone is None:
            self.seconds_alone = self.time_alone()
        self.began = time.perf_counter()
        means, skips = (self.totals / self.counted).tolist(), self.take_step.skips
        skipped, in_a_row = skips.counts() if skips else (0, 0)
        finite = [math.isfinite(loss) for loss, *_ in means]  # some step since the line before was not left out
        for run, told, (loss, nll, *kl) in zip(self.runs, finite, means, strict=True):
            if told and self.take_step.writes:
                run.append(self.row(loss, nll, kl, skipped))
        self.totals.zero_()
        self.counted.zero_()
        if skips is None:
            self.step = self.step if any(finite) else self.steps
        elif in_a_row >= MOST_SKIPPED_IN_A_ROW or (self.step == self.steps and not finite[0]):
            self.go_back(skipped)
        elif in_a_row == 0 and self.step % self.keep_steps == 0:
            self.keep()
        self.last_line = self.step, self.seconds

    def row(self, loss: float, nll: float, kl: list[float], skipped: int) -> dict:
        """One line of a run's log.

        The scaling efficiency of n processes is their images a second over n times those of one on its own share of
        the batch: seconds of a step in which nobody waits over those of a step as it is, with collectives, log and
        checkpoints (in a process's first line with compilation, too).
        """
        row = {"images_seen": self.step * self.batch, "loss": loss, "nll_nats": nll}
        row |= {"kl_nats": sum(kl), "elbo_nats": -nll - sum(kl), "kl_nats_by_group": kl}
        row |= {"learning_rate": self.rate(self.step - 1), "seconds": round(self.seconds / len(self.runs), 3)}
        row |= {"steps_skipped": skipped, "rollbacks": self.rollbacks}
        if self.take_step.processes == 1:
            return row
        step, seconds = self.last_line
        efficiency = self.seconds_alone * (self.step - step) / (self.seconds - seconds)
        return row | {"scaling_efficiency": round(efficiency, 3)}

    def time_alone(self) -> float:
        """Seconds of a step without collectives, their mean over the processes; what it changes is put back."""
        step, state = self.take_step, _copied(self.take_step.state_dict(), "cpu")
        step.together, taken = False, []
        for _ in range(1 + STEPS_ALONE):
            began = time.perf_counter()
            step(self.step, self.step / self.steps).tolist()  # waits for the device
            taken.append(time.perf_counter() - began)
        step.together = True
        step.load_state_dict(_copied(state, step.device))
        return float(distributed.mean(torch.tensor(taken[1:]).mean()))

    def keep(self) -> None:
        """A state to go back to, in the host's memory."""
        self.kept = {"step": self.step, "state": _copied(self.take_step.state_dict(), "cpu")}

    def go_back(self, skipped: int) -> None:
        """On from the state kept last, with half the learning rate; what the log says beyond it is dropped."""
        if self.rollbacks == MOST_ROLLBACKS:
            self.save()
            raise self.diverged(self.jobs[0], f"also at 1/{2**self.rollbacks} of its learning rate")
        seen, kept = (f"{step * self.batch:,}" for step in (self.step, self.kept["step"]))
        words = "%s: not finite after %s images; back to %s, with half the learning rate"
        logger.warning(words, self.runs[0].path, seen, kept)
        self.rollbacks, self.step = self.rollbacks + 1, self.kept["step"]
        self.take_step.load_state_dict(_copied(self.kept["state"], self.take_step.device))
        self.take_step.skips.count.copy_(torch.tensor([skipped, 0]))  # in all, and in a row
        self.truncate_logs()
        self.save()

    def diverged(self, job: Job, how: str) -> Diverged:
        """What to say of a training that did not come to a good end."""
        seen, which = f"{self.step * self.batch:,}", f"{job.training.objective}, seed {job.training.seed}"
        return Diverged(f"training diverged after {seen} images, {how}: lower learning_rate ({which})")

    def save(self) -> None:
        """A checkpoint to go on from; every process could write it, and one does."""
        if self.take_step.writes:
            state = {name: getattr(self, name) for name in STATE} | {"state": self.take_step.state_dict()}
            state["seconds"] += time.perf_counter() - self.began  # those before an interruption are counted
            checkpoint.save(self.folder, self.taken, state)

    def resume(self) -> None:
        """Take up the newest whole checkpoint, and drop what the log says beyond it."""
        state = checkpoint.load(self.folder, self.take_step.device)
        if state is not None:
            try:
                self.take_step.load_state_dict(state["state"])
                for name in STATE:
                    setattr(self, name, state[name])
            except (LookupError, AttributeError, ValueError, RuntimeError) as error:
                if memory.is_oom(error):
                    raise
                raise InputError(
                    f"the state in {self.folder} was written by another version of vaestudy, and this one cannot go on "
                    "from it: remove its checkpoint-*.pt files to begin anew"
                ) from error
            self.kept = _copied(self.kept, "cpu")
        elif self.take_step.skips is not None:
            self.keep()
        self.truncate_logs()

    def truncate_logs(self) -> None:
        """Drop what the logs say beyond this step."""
        for run in self.runs if self.take_step.writes else []:
            run.truncate_log(self.step * self.batch)

    def finalize(self) -> None:
        """The trained weights and, last of all, the record that makes a run a finished one."""
        seconds, device = self.seconds / len(self.runs), self.take_step.device
        about = {"device": device_name(device), "seconds": round(seconds, 1), "models_at_once": len(self.runs)}
        about |= {"data_checksum": self.take_step.images.checksum, "processes": self.take_step.processes}
        about |= {"precision": "bf16" if self.take_step.cast._enabled else "fp32"}
        about |= {"peak_memory_gib": round(memory.peak(device) / 2**30, 2)}
        seen, made_by, lost = self.steps * self.batch, provenance(**about), []
        for job, run, weights in zip(self.jobs, self.runs, self.take_step.final_weights(), strict=True):
            finite = all(weight.isfinite().all() for weight in weights.values())
            if not finite or run.images_seen < seen:  # its last numbers are not in the log
                lost.append(job)
                continue
            run.save_weights(weights)
            end = {name: value for name, value in run.log[-1].items() if name in RECORDED}
            end |= {"images_per_second": round(seen / max(seconds, 1e-9), 1)}
            run.update_record(config=run.config, training=end, provenance={"seed": job.training.seed, **made_by})
        checkpoint.remove(self.folder)
        if lost:
            raise self.diverged(lost[0], "its last numbers are not finite")


def _copied(state: Any, device: torch.device | str) -> Any:
    """A nested state on a device, sharing no tensor."""
    return tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to(device, copy=True), state)
