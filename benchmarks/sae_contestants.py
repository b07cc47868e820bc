"""One contestant of `train_sae.py`, in a process and an environment of its own: `sae_contestants.py TASK` (JSON).

All see the same tokens, already standardised, and start from the same rows; each takes the library's own step. What
they have in common: Adam at one peak rate, 50 steps of warm-up, decay over the last fifth, and AuxK over d_model / 2
dead features with weight 1/32, dead after ten million tokens, so that no feature is while time is taken. (Half of
d_model is built into two of the libraries, ten million into one.) What is left to each is what its own trainer does:
SAELens scales by the decoder's norms where the others keep them at 1, and sparsify does not clip gradients.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mixtures import Mixtures
from timing import timed
from torch import Tensor

AUX_WEIGHT = 1 / 32
DEAD_AFTER = 10_000_000
WARM_UP = 50
"""Steps in which the rate rises."""
HELD_OUT = 4096
"""Tokens that the error is measured on."""


class UnsupportedError(Exception):
    """A mode that a library does not have on this device."""


@dataclass(frozen=True)
class Task:
    """What a process is to do."""

    name: str
    mode: str
    measure: str
    """`speed` or `fvu`."""
    device: str
    d_model: int
    features: int
    k: int
    batch: int
    total: int
    """Steps that the schedule is made for, and that are taken for `fvu`."""
    warm_up: int = 1
    """Steps before time is taken."""
    steps: int = 1
    """Steps that are timed."""

    @property
    def rate(self) -> float:
        return 2e-4 / (self.features / 2**14) ** 0.5

    @property
    def decay(self) -> int:
        return max(self.total // 5, 1)

    @property
    def rise(self) -> int:
        """Steps of warm-up; fewer than 50 where a trial run has no 50."""
        return max(min(WARM_UP, self.total - self.decay - 1), 1)

    def share(self, step: int) -> float:
        """Of the peak rate, at a step."""
        return min((step + 1) / self.rise, 1.0, (self.total - step) / self.decay)

    def autocast(self) -> Any:
        if self.mode != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)


@dataclass
class Contestant:
    """A library at work: one training step, and what it makes of tokens `[n, d_model]` afterwards."""

    step: Callable[[Tensor], Any]
    reconstruct: Callable[[Tensor], Tensor]


Builder = Callable[[Tensor], Contestant]
"""From the first batch; the start rows are those of `start_rows`."""


def start_rows(task: Task) -> Tensor:
    """Unit rows `[features, d_model]` that encoder and decoder start from: those that seed 0 gives our trainer."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(task.features, task.d_model, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1).to(task.device)


def import_checkout() -> None:
    """Let `fluxtionary` be the checkout that this file lies in, whatever its folder is called."""
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "fluxtionary", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fluxtionary"] = module
    spec.loader.exec_module(module)


def ours(task: Task) -> Builder:
    import_checkout()
    from fluxtionary.dictionaries import Normalization
    from fluxtionary.training.sae import SAETraining
    from fluxtionary.training.trainer import Trainer
    from fluxtionary.training.workers import Workers

    some = start_rows(task)[::512].clone()  # all of them would be the peak of what follows

    def build(first: Tensor) -> Contestant:
        config = SAETraining(
            features=task.features,
            k=task.k,
            tokens=task.total * task.batch,
            batch=task.batch,
            learning_rate=task.rate,
            aux_k=task.d_model // 2,
            aux_weight=AUX_WEIGHT,
            dead_after=DEAD_AFTER,
            compute=task.mode,
        )
        workers = Workers(device=task.device)
        trainer = Trainer(Normalization(kind="none"), task.d_model, config, first.cpu(), workers)
        if not torch.equal(trainer.encoder[::512], some):
            raise RuntimeError("our trainer no longer starts from the rows that the others are given")

        def reconstruct(x: Tensor) -> Tensor:
            sae = trainer.dictionary("double.18.img", None, None)
            return sae.decode(sae.encode(x.cpu())).to(x.device)

        return Contestant(trainer.step, reconstruct)

    return build


def sparsify(task: Task) -> Builder:
    """Its trainer is bound to a language model, so this is the body of its loop, without what serves many SAEs."""
    if task.device == "cuda" and task.mode != "bfloat16":
        raise UnsupportedError("its forward pass turns autocast on by itself on a GPU")
    from sparsify.config import SparseCoderConfig, TrainConfig
    from sparsify.sparse_coder import SparseCoder

    def build(first: Tensor) -> Contestant:
        config = TrainConfig(
            SparseCoderConfig(num_latents=task.features, k=task.k),
            optimizer="adam",
            lr=task.rate,
            auxk_alpha=AUX_WEIGHT,
            dead_feature_threshold=DEAD_AFTER,
        )
        sae = SparseCoder(task.d_model, config.sae, task.device, dtype=torch.float32)
        rows = start_rows(task)
        sae.encoder.weight.data.copy_(rows)
        sae.W_dec.data.copy_(rows)
        del rows
        sae.b_dec.data = first.mean(0)
        optimizer = torch.optim.Adam([{"params": sae.parameters(), "lr": config.lr}])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, task.share)
        silent = torch.zeros(task.features, device=task.device, dtype=torch.long)
        did_fire = torch.zeros(task.features, device=task.device, dtype=torch.bool)

        def step(x: Tensor) -> None:
            sae.set_decoder_norm_to_unit_norm()
            dead = silent > config.dead_feature_threshold
            variance = (x - x.mean(0)).pow(2).sum()
            with task.autocast():
                out = sae(x=x, y=x, dead_mask=dead, total_variance=variance)
            did_fire[out.latent_indices.flatten()] = True
            float(out.fvu.detach())
            float(out.auxk_loss.detach())
            (out.fvu + config.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
            del out
            sae.remove_gradient_parallel_to_decoder_directions()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            with torch.no_grad():
                silent.add_(len(x))
                silent[did_fire] = 0
                did_fire.zero_()

        def reconstruct(x: Tensor) -> Tensor:
            values, indices, _ = sae.encode(x)
            return sae.decode(values, indices)

        return Contestant(step, reconstruct)

    return build


def saelens(task: Task) -> Builder:
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sparse = task.mode == "float32 sparse"

    def build(first: Tensor) -> Contestant:
        sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(
                d_in=task.d_model,
                d_sae=task.features,
                k=task.k,
                device=task.device,
                apply_b_dec_to_input=True,
                normalize_activations="none",
                decoder_init_norm=1.0,
                aux_loss_coefficient=AUX_WEIGHT,
                use_sparse_activations=sparse,
                rescale_acts_by_decoder_norm=not sparse,  # the default; its backward fails on sparse codes
            )
        )
        config = SAETrainerConfig(
            total_training_samples=task.total * task.batch,
            train_batch_size_samples=task.batch,
            lr=task.rate,
            lr_end=task.rate,  # what it decays from; to 0
            lr_warm_up_steps=task.rise,
            lr_decay_steps=task.decay,
            device=task.device,
            autocast=task.mode == "bfloat16",
            dead_feature_window=DEAD_AFTER // task.batch,  # it counts steps
            logger=LoggingConfig(log_to_wandb=False),
        )
        rows = start_rows(task)
        sae.W_enc.data.copy_(rows.T)
        sae.W_dec.data.copy_(rows)
        del rows
        trainer = SAETrainer(config, sae, data_provider=iter(()))

        def step(x: Tensor) -> None:
            trainer.maybe_reset_sparsity()
            trainer.step(x)
            trainer.n_training_steps += 1

        return Contestant(step, lambda x: sae.decode(sae.encode(x)))

    return build


def dictionary_learning(task: Task) -> Builder:
    from dictionary_learning.trainers.top_k import TopKTrainer

    def build(first: Tensor) -> Contestant:
        trainer = TopKTrainer(
            steps=task.total,
            activation_dim=task.d_model,
            dict_size=task.features,
            k=task.k,
            layer=0,
            lm_name="none",
            lr=task.rate,
            auxk_alpha=AUX_WEIGHT,
            warmup_steps=task.rise,
            decay_start=task.total - task.decay,
            seed=0,
            device=task.device,
        )
        trainer.dead_feature_threshold = DEAD_AFTER
        trainer.top_k_aux = task.d_model // 2
        rows = start_rows(task)
        trainer.ae.encoder.weight.data.copy_(rows)
        trainer.ae.decoder.weight.data.copy_(rows.T)
        del rows
        done = 0

        def step(x: Tensor) -> None:
            nonlocal done
            with task.autocast():  # its training loop casts the tokens too
                trainer.update(done, x.bfloat16() if task.mode == "bfloat16" else x)
            done += 1

        return Contestant(step, lambda x: trainer.ae.decode(trainer.ae.encode(x)))

    return build


LIBRARIES = {
    "ours": (ours, "torch"),
    "sparsify": (sparsify, "eai-sparsify"),
    "saelens": (saelens, "sae-lens"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
}
"""What readies a contestant, importing its library; and the distribution that the library comes in."""


class Data:
    """Standardised tokens: the same for whoever asks with the same task, drawn from one seed."""

    def __init__(self, task: Task):
        self.source, self.task = Mixtures(task.d_model), task
        fitted = self.source.draw(8192).double()
        self.mean, self.std = fitted.mean(0).float(), fitted.std(0).float()
        self.held_out = self.draw(HELD_OUT)

    def draw(self, n: int) -> Tensor:
        """From the CPU's generator on all devices, so that a GPU's contestants learn the same."""
        x = self.source.draw(n)
        return x.sub_(self.mean).div_(self.std).to(self.task.device)

    def batches(self) -> Iterator[Tensor]:
        while True:
            yield self.draw(self.task.batch)


def resident(field: str) -> int:
    """Bytes of this process: `VmRSS`, or `VmHWM`, the most since the last `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def forget_peak() -> None:
    """Give freed memory back to the system, and let the peak count from here."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc alone has it
    Path("/proc/self/clear_refs").write_text("5")


class Memory:
    """Peak memory of the training alone: beyond torch, the tokens and the imported library.

    On a GPU it is the allocator's, beyond the tokens.
    """

    def __init__(self, device: str):
        self.device = device
        self.before = 0
        self.highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            forget_peak()
            self.before = resident("VmRSS")

    def figures(self) -> dict[str, int]:
        if self.device == "cuda":
            peak = torch.cuda.max_memory_allocated()
            return {"peak_bytes_process": peak, "peak_bytes_training": peak - self.before}
        peak = resident("VmHWM")
        return {"peak_bytes_process": max(peak, self.highest), "peak_bytes_training": peak - self.before}


def fvu(x: Tensor, reconstruction: Tensor) -> float:
    """Share of variance unexplained: one function for all."""
    error = (x.double() - reconstruction.double()).square().sum()
    return float(error / (x.double() - x.double().mean(0)).square().sum())


def perform(task: Task) -> dict[str, Any]:
    # sparsify's trainer sets this; with it all may use a GPU's tensor cores for products in float32
    torch.set_float32_matmul_precision("high")
    data = Data(task)
    ahead = task.warm_up + task.steps if task.measure == "speed" else 1
    batches = [data.draw(task.batch) for _ in range(ahead)]
    build = LIBRARIES[task.name][0](task)
    memory = Memory(task.device)
    contestant = build(batches[0])
    if task.measure == "speed":
        for x in batches[: task.warm_up]:
            contestant.step(x)
        before = time.process_time()
        seconds = [timed(lambda x=x: contestant.step(x), task.device)[1] for x in batches[task.warm_up :]]
        # how far below the number of cores this lies shows how busy the machine was with something else
        cores = (time.process_time() - before) / sum(seconds)
        return {"step_seconds": statistics.median(seconds), "seconds": seconds, "cores": cores} | memory.figures()
    spent = []
    source = data.batches()
    for _ in range(task.total):
        x = next(source)
        spent.append(timed(lambda x=x: contestant.step(x), task.device)[1])
    with torch.no_grad():
        found = fvu(data.held_out, contestant.reconstruct(data.held_out))
    return {"fvu": found, "step_seconds": statistics.median(spent)} | memory.figures()


def main() -> None:
    # libraries print to stdout while they are imported; the answer alone shall stand there
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = Task(**json.loads(sys.argv[1]))
    try:
        found = perform(task)
    except UnsupportedError as error:
        found = {"unsupported": str(error)}
    found["version"] = importlib.metadata.version(LIBRARIES[task.name][1])
    json.dump(found, answer)
    answer.flush()


if __name__ == "__main__":
    main()
