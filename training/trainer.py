"""One sparse autoencoder in training: its weights in normalized space, and what a step does to them.

Gradients are worked out by hand (`entries`): torch's own would be dense in `[batch, features]` and take most of the
time and the memory. A test compares them with autograd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..dictionaries import Activation, Normalization, Provenance, Scale, SparseAutoencoder
from ..residual import Site
from .activity import JumpReLU, batchtopk, topk
from .adam import RowAdam
from .entries import ByFeature, Entries
from .hardware import computes_in_bfloat16
from .sae import SAETraining
from .start import start_weights
from .workers import ALONE, Workers

CLIP = 1.0
"""Longest gradient that is taken as it is (Gao et al. 2024)."""
THRESHOLD_MEMORY = 0.99
"""Share of BatchTopK's threshold that a step keeps: single batches vary."""


class Trainer:
    """Weights, optimizer and when each feature was last active.

    `sample [n, d_model]` are some plain activations to start from, where the settings ask for that. Several
    `workers` each bring their own part of every batch, and all hold the same weights after every step.

    Attributes:
        encoder, decoder: float32 `[features, d_model]`, for normalized activations.
        encoder_bias, decoder_bias: float32 `[features]`, `[d_model]`.
        silent: tokens since each feature was last active, int64 `[features]`.
        number: steps done.
    """

    def __init__(
        self,
        normalization: Normalization,
        d_model: int,
        config: SAETraining,
        sample: Tensor | None = None,
        workers: Workers = ALONE,
    ):
        self.config, self.workers = config, workers
        self.normalization = normalization
        device = workers.device
        mean, std, rotation = (None if t is None else t.to(device) for t in normalization.tensors())
        self._normalization = replace(normalization, mean=mean, std=std, rotation=rotation)
        z = None if sample is None else normalization.apply(sample.float())
        rows, center = start_weights(d_model, config, z)
        self.decoder, self.encoder = rows.to(device), rows.clone().to(device)
        self.encoder_bias = torch.zeros(config.features, device=device)
        self.decoder_bias = center.to(device)
        self.silent = torch.zeros(config.features, dtype=torch.long, device=device)
        self.jump = JumpReLU(config.features, config.k, config.l0_weight, device) if config.kind == "jumprelu" else None
        self.threshold = torch.zeros(1, device=device)
        self.number = 0
        self.steps = max(config.tokens // config.batch, 1)
        self.type = getattr(torch, config.compute)
        half = self.type != torch.float32
        # sums over few rows are faster in half precision everywhere, the product with the whole encoder is not
        product = self.type if computes_in_bfloat16(device) else torch.float32
        self.encoder_half = self.encoder.to(product)
        self.decoder_half = self.decoder.to(self.type)
        self._toward_encoder = self._room(self.encoder_half, self.encoder)
        self.optimizers = {
            "decoder": RowAdam(self.decoder, unit_rows=True, half=self.decoder_half if half else None),
            "encoder": RowAdam(self.encoder, half=None if self.encoder_half is self.encoder else self.encoder_half),
            "encoder_bias": RowAdam(self.encoder_bias),
            "decoder_bias": RowAdam(self.decoder_bias),
        }
        if self.jump is not None:
            self.optimizers["log_threshold"] = RowAdam(self.jump.log_threshold)

    def rate(self) -> float:
        """Warm up over 50 steps, fall to zero at the end."""
        share = min((self.number + 1) / 50, 1.0, (self.steps - self.number) / (self.config.decay * self.steps))
        return self.config.rate() * share

    @torch.no_grad()
    def step(self, x: Tensor, measure: bool = False) -> dict[str, float] | None:
        """One optimizer step on this worker's plain activations `[n, d_model]` of a batch; its figures if asked for.

        The figures are those of the whole batch before the step: `loss`, `fvu` (in normalized space), `l0`, `dead`.
        """
        z = self._normalization.apply(x.to(self.workers.device, torch.float32))
        centred = z - self.decoder_bias
        entries = self._entries(centred.to(self.encoder_half.dtype))
        inside = centred.to(self.type)
        errors = self._errors(centred, entries)
        del centred
        dead = (self.silent > self.config.dead_after).nonzero()[:, 0]
        revived = len(dead) > 0 and self.config.aux_weight > 0
        error = errors[-1] if measure or revived else None
        slopes, toward_bias, loss = self._slopes(errors, keep=error is not None)
        del errors
        gradients = self._gradients(inside, entries, slopes, toward_bias)
        if revived and error is not None:
            loss = loss + self._auxiliary(inside, error, dead, gradients)
        figures = self._figures(z, error, entries, loss) if measure and error is not None else None
        self._update(gradients)
        self._note_active(entries)
        return figures

    def _entries(self, x: Tensor) -> Entries:
        config = self.config
        if self.jump is not None:
            return self.jump.entries(x, self.encoder_half, self.encoder_bias, self.workers, config.batch)
        if config.kind == "topk":
            # the gradient has no use for its place yet, unless that is the encoder's own
            room = None if self._toward_encoder is self.encoder_half else self._toward_encoder
            return topk(x, self.encoder_half, self.encoder_bias, config.k, room)
        entries, floor = batchtopk(x, self.encoder_half, self.encoder_bias, config.k, self.workers, config.batch)
        # of few steps so far fewer count: the first floors are far from the last
        keep = min(THRESHOLD_MEMORY, self.number / (self.number + 10))
        self.threshold.lerp_(floor, 1 - keep)
        return entries

    def _active(self, entries: Entries) -> Tensor:
        """Which of the values count `[e]`: of JumpReLU's, those above their thresholds."""
        return entries.values > 0 if self.jump is None else self.jump.on(entries)

    def _groups(self) -> list[tuple[int, int]]:
        ends = torch.tensor(self.config.group_sizes()).cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _of_group(self, entries: Entries, first: int, end: int) -> Entries:
        if first == 0 and end == self.config.features:
            return entries
        return entries.only((entries.features >= first) & (entries.features < end))

    def _errors(self, centred: Tensor, entries: Entries) -> list[Tensor]:
        """What the first group of features leaves unexplained, the first two, ...: the last is that of all.

        `centred` is used up, unless it is also what the gradients are made of.
        """
        counted = entries._replace(values=entries.values * self._active(entries))
        errors: list[Tensor] = []
        left = centred
        for first, end in self._groups():
            left = left.clone() if errors or self.type == centred.dtype else left
            self._of_group(counted, first, end).subtract_from(left, self.decoder_half)
            errors.append(left)
        return errors

    def _slopes(self, errors: list[Tensor], keep: bool) -> tuple[list[Tensor], Tensor, Tensor]:
        """Of the mean squared error of all prefixes of groups, by what each group adds to the reconstruction.

        Beside these, by the decoder's bias, and that error of this worker's part. `errors` are used up unless kept.
        """
        size = self.config.batch * errors[0].shape[1] * len(errors)
        loss = torch.stack([torch.linalg.vector_norm(error, dim=1).square().sum() for error in errors]).sum() / size
        slopes = []  # a group is in the prefixes from its own on
        to_sum: Tensor | None = None
        for error in reversed(errors):
            if to_sum is None:
                to_sum = error * (-2 / size) if keep else error.mul_(-2 / size)
            else:
                to_sum.sub_(error, alpha=2 / size)
            slopes.append(to_sum.to(self.type, copy=len(errors) > 1))
        assert to_sum is not None
        return slopes[::-1], to_sum.sum(0), loss

    def _gradients(self, x: Tensor, entries: Entries, slopes: list[Tensor], toward_bias: Tensor) -> dict[str, Tensor]:
        """Of all that is trained, by name, from what `_slopes` gives."""
        decoder = None if self.config.freeze_decoder else self._room(self.decoder_half, self.decoder)
        encoder = self._toward_encoder
        encoder_bias = torch.zeros_like(self.encoder_bias)
        for (first, end), slope in zip(self._groups(), slopes, strict=True):
            own = self._of_group(entries, first, end)
            active = self._active(own)
            by_value = own.products(slope, self.decoder_half)
            by_feature = ByFeature(own, first, end)
            if decoder is not None:
                by_feature.sums(own.values * active, slope, decoder[first:end])
            by_feature.sums(by_value * active, x, encoder[first:end])
            encoder_bias.index_add_(0, own.features, by_value * active)
            if self.jump is not None:
                self.jump.backward(own, by_value, self.workers, self.config.batch)
        gradients = {} if decoder is None else {"decoder": decoder}
        gradients |= {
            "encoder": encoder,
            "encoder_bias": encoder_bias,
            # it is added to the reconstruction, and taken from what the encoder sees
            "decoder_bias": toward_bias - encoder_bias @ self.encoder,
        }
        if self.jump is not None:
            gradients["log_threshold"] = self.jump.gradient
        return gradients

    def _room(self, half: Tensor, weight: Tensor) -> Tensor:
        """Where the gradient of `weight` goes: over its copy `half` in half precision, if there is one.

        A step is done with that copy by then, and its update writes it anew.
        """
        return half if half.dtype == self.type != weight.dtype else torch.empty_like(weight, dtype=self.type)

    def _auxiliary(self, x: Tensor, error: Tensor, dead: Tensor, gradients: dict[str, Tensor]) -> Tensor:
        """AuxK: dead features learn the error of the living, in encoder and decoder (Gao et al. 2024, section A.2).

        The loss is the share of the error that the dead leave unexplained, less where few are dead.
        """
        config = self.config
        k = min(config.aux_k, len(dead))
        # not from the copies, over which the gradients lie
        encoder = self.encoder[dead].to(self.encoder_half.dtype)
        decoder = self.decoder[dead].to(self.type)
        entries = topk(x.to(encoder.dtype), encoder, self.encoder_bias[dead], k)
        left = error - entries.weighted_sum(decoder).float()
        whole = self.workers.sum(error.square().sum()).clamp_min(1e-12)
        weight = config.aux_weight * min(len(dead) / config.aux_k, 1.0)
        slope = (left * (-2 * weight / whole)).to(self.type)
        by_value = entries.products(slope, decoder) * (entries.values > 0)
        by_feature = ByFeature(entries, 0, len(dead))
        if "decoder" in gradients:
            gradients["decoder"].index_add_(0, dead, by_feature.sums(entries.values, slope))
        gradients["encoder"].index_add_(0, dead, by_feature.sums(by_value, x))
        bias = torch.zeros_like(self.encoder_bias[dead]).index_add_(0, entries.features, by_value)
        gradients["encoder_bias"].index_add_(0, dead, bias)
        gradients["decoder_bias"] -= bias @ self.encoder[dead]
        return weight * left.square().sum() / whole

    def _update(self, gradients: dict[str, Tensor]) -> None:
        gradients = {name: self.workers.sum(gradient) for name, gradient in gradients.items()}
        norm = sum(self.optimizers[name].squared_norm(gradient) for name, gradient in gradients.items())
        clip = (CLIP / torch.as_tensor(norm).sqrt().clamp_min(1e-30)).clamp(max=1.0)
        rate = self.rate()
        self.number += 1
        for name, gradient in gradients.items():
            self.optimizers[name].step(gradient, rate, clip, self.number)

    def _note_active(self, entries: Entries) -> None:
        fired = torch.zeros_like(self.encoder_bias)
        fired[entries.features[self._active(entries)]] = 1
        self.silent += self.config.batch
        self.silent[self.workers.sum(fired) > 0] = 0

    def _figures(self, z: Tensor, error: Tensor, entries: Entries, loss: Tensor) -> dict[str, float]:
        sums = [error.square().sum()[None], z.square().sum()[None], self._active(entries).sum()[None], loss[None]]
        whole = self.workers.sum(torch.cat([*sums, z.sum(0)]).double())
        n = self.config.batch
        variance = whole[1] - whole[4:].square().sum() / n
        return {
            "loss": float(whole[3]),
            "fvu": float(whole[0] / variance),
            "l0": float(whole[2]) / n,
            "dead": self.dead(),
        }

    def dead(self) -> float:
        """Share of features that have not been active for `dead_after` tokens."""
        return float((self.silent > self.config.dead_after).float().mean())

    def state(self) -> dict[str, Tensor]:
        """All that changes from step to step, for a checkpoint."""
        own = {name: optimizer.weight for name, optimizer in self.optimizers.items()}
        moments = {
            f"{name}.{kind}": getattr(optimizer, kind)
            for name, optimizer in self.optimizers.items()
            for kind in ("mean", "square")
        }
        return own | moments | {"silent": self.silent, "threshold": self.threshold, "number": torch.tensor(self.number)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        for name, tensor in self.state().items():
            if name != "number":
                tensor.copy_(state[name])
        self.number = int(state["number"])
        self.encoder_half.copy_(self.encoder)  # they are the same tensor in float32
        self.decoder_half.copy_(self.decoder)

    def activation(self) -> Activation:
        """What stands in the file: BatchTopK is used with the threshold that its batches had."""
        config = self.config
        if self.jump is not None:
            return Activation("jumprelu", threshold=self.jump.threshold.cpu())
        if config.kind == "topk":
            return Activation("topk", config.k)
        return Activation("batchtopk", config.k, self.threshold.cpu().clone())

    def dictionary(self, site: Site, scale: Scale, provenance: Provenance) -> SparseAutoencoder:
        """The SAE so far, its normalization folded into the weights; on the CPU."""
        normalization = self.normalization
        encoder, bias, decoder, center = (
            tensor.cpu() for tensor in (self.encoder, self.encoder_bias, self.decoder, self.decoder_bias)
        )
        encoder, bias = normalization.fold_encoder(encoder, bias - encoder @ center)
        decoder, center = normalization.fold_decoder(decoder, center)
        return SparseAutoencoder(
            site=str(site),
            encoder=encoder.clone(),
            encoder_bias=bias.clone(),
            decoder=decoder.clone(),
            decoder_bias=center.clone(),
            activation=self.activation(),
            normalization=normalization,
            groups=self.config.group_sizes() if self.config.kind == "matryoshka" else (),
            scale=scale,
            provenance=provenance,
        )
