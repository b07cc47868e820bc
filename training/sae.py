"""Training TopK sparse autoencoders on a stream of activations.

Gao et al. 2024 (arXiv 2406.04093): TopK, tied start, unit decoder rows with the parallel gradient removed, and
AuxK, an auxiliary loss by which dead features learn the error of the living.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..dictionaries import Activation, Normalization, Provenance, Scale, SparseAutoencoder, SparseCode
from ..dictionaries.scale import ScaleMeter
from ..residual import Site
from .buffer import ShuffleBuffer


@dataclass(frozen=True)
class SAETraining:
    """How a sparse autoencoder is trained."""

    features: int = 1536
    """Number of features."""
    k: int = 16
    """Active features a token."""
    tokens: int = 2_000_000
    """Tokens to train on, counting every use of a token."""
    batch: int = 2048
    """Tokens a step."""
    learning_rate: float | None = None
    """Peak of Adam; by default 2e-4 / sqrt(features / 2^14) as in Gao et al."""
    aux_k: int = 64
    """Dead features that learn the error, a token."""
    aux_weight: float = 1 / 32
    """Weight of that auxiliary loss."""
    dead_after: int = 100_000
    """Tokens without being active after which a feature counts as dead."""
    buffer: int = 200_000
    """Tokens held for shuffling."""
    reuse: float = 4.0
    """Times each captured token is used, on average."""
    seed: int = 0
    """Seed of the start and of the shuffling."""

    def __post_init__(self) -> None:
        for name in ("features", "k", "tokens", "batch", "buffer", "aux_k", "dead_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.k > self.features:
            raise ValueError(f"k = {self.k} active features need at least as many features, found {self.features}")


class Trainer:
    """The state of one training: weights in normalized space, optimizer, and when each feature was last active."""

    def __init__(self, normalization: Normalization, d_model: int, config: SAETraining):
        self.config = config
        self.normalization = normalization
        generator = torch.Generator().manual_seed(config.seed)
        rows = F.normalize(torch.randn(config.features, d_model, generator=generator), dim=1)
        self.decoder = rows.clone().requires_grad_()
        self.encoder = rows.clone().requires_grad_()
        self.encoder_bias = torch.zeros(config.features, requires_grad=True)
        self.decoder_bias = torch.zeros(d_model, requires_grad=True)
        self.weights = [self.decoder, self.encoder, self.encoder_bias, self.decoder_bias]
        rate = config.learning_rate or 2e-4 / (config.features / 2**14) ** 0.5
        self.optimizer = torch.optim.Adam(self.weights, lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        self.steps = max(config.tokens // config.batch, 1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.silent = torch.zeros(config.features, dtype=torch.long)  # tokens since last active

    def _rate(self, step: int) -> float:
        """Warm up over 50 steps, decay to zero over the last fifth."""
        return min((step + 1) / 50, 1.0, (self.steps - step) / (0.2 * self.steps))

    def step(self, x: Tensor) -> tuple[float, float]:
        """One optimizer step on plain activations `[batch, d_model]`; returns its FVU and L0."""
        x = self.normalization.apply(x)
        # encoder @ (x - decoder_bias) + encoder_bias, so written that backward needs no gradient of the size of x
        before = F.linear(x, self.encoder, self.encoder_bias - self.encoder @ self.decoder_bias)
        values, indices = before.topk(self.config.k, dim=-1, sorted=False)
        values = torch.relu(values)
        error = x - self.decoder_bias - _decode(values, indices, self.decoder)
        loss = error.square().mean()
        auxiliary = self._auxiliary(before, error.detach())
        self.optimizer.zero_grad(set_to_none=True)
        (loss if auxiliary is None else loss + self.config.aux_weight * auxiliary).backward()
        self._project_gradient()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))
            self.silent += len(x)
            self.silent[indices[values > 0]] = 0
            l0 = float((values > 0).sum()) / len(x)
        return float(error.detach().square().sum() / (x - x.mean(0)).square().sum()), l0

    def _auxiliary(self, before: Tensor, error: Tensor) -> Tensor | None:
        """How badly the dead features explain the error, relative to its size; scaled by how many there are."""
        dead = (self.silent > self.config.dead_after).nonzero()[:, 0]
        if not len(dead):
            return None
        k = min(self.config.aux_k, len(dead))
        values, place = before[:, dead].topk(k, dim=-1, sorted=False)
        explained = _decode(torch.relu(values), dead[place], self.decoder)
        share = (error - explained).square().sum() / error.square().sum().clamp_min(1e-12)
        return share * min(len(dead) / self.config.aux_k, 1.0)

    @torch.no_grad()
    def _project_gradient(self) -> None:
        """Remove the part of the decoder's gradient along its rows, which the renormalization would undo."""
        grad = self.decoder.grad
        assert grad is not None
        grad -= (grad * self.decoder).sum(1, keepdim=True) * self.decoder

    def dead(self) -> float:
        return float((self.silent > self.config.dead_after).float().mean())

    @torch.no_grad()
    def dictionary(self, site: Site, scale: Scale, provenance: Provenance) -> SparseAutoencoder:
        """The SAE so far, its normalization folded into the weights."""
        bias = self.encoder_bias - self.encoder @ self.decoder_bias
        encoder, encoder_bias = self.normalization.fold_encoder(self.encoder, bias)
        decoder, decoder_bias = self.normalization.fold_decoder(self.decoder, self.decoder_bias)
        return SparseAutoencoder(
            site=str(site),
            encoder=encoder,
            encoder_bias=encoder_bias,
            decoder=decoder.clone(),
            decoder_bias=decoder_bias.clone(),
            activation=Activation("topk", self.config.k),
            normalization=self.normalization,
            scale=scale,
            provenance=provenance,
        )


def _decode(values: Tensor, indices: Tensor, decoder: Tensor) -> Tensor:
    return F.embedding_bag(indices, decoder, per_sample_weights=values, mode="sum")


def train_sae(
    buffer: ShuffleBuffer, site: Site, config: SAETraining, model: dict[str, Any], capture: dict[str, Any]
) -> SparseAutoencoder:
    """Train on a buffer and return the dictionary, with scale, natural values and how it was made.

    Interrupted by the user (KeyboardInterrupt) it returns what it has, marked `interrupted` in its header.
    """
    started = time.monotonic()
    first = buffer.fill()
    normalization = Normalization.fit(first.x)
    meter = ScaleMeter(first.x.shape[1])
    meter.add(first.x, first.sigma)
    trainer = Trainer(normalization, first.x.shape[1], config)
    interrupted = False
    with tqdm(
        total=trainer.steps * config.batch, desc=f"SAE {site}", unit="token", unit_scale=True, mininterval=1
    ) as bar:
        try:
            for step in range(trainer.steps):
                fvu, l0 = trainer.step(buffer.batch(config.batch))
                bar.update(config.batch)
                if step % 20 == 0:
                    bar.set_postfix(fvu=f"{fvu:.3f}", l0=f"{l0:.1f}", dead=f"{trainer.dead():.1%}")
        except KeyboardInterrupt:
            interrupted = True
    training = asdict(config) | {"seconds": round(time.monotonic() - started, 1), "interrupted": interrupted}
    provenance = Provenance(model=model, capture=capture | {"n_tokens": buffer.captured}, training=training)
    dictionary = trainer.dictionary(site, meter.scale(), provenance)
    dictionary.natural = natural_values(dictionary, first.x, first.sigma)
    return dictionary


def natural_values(dictionary: SparseAutoencoder, x: Tensor, sigma: Tensor, batch: int = 8192) -> Tensor:
    """Each feature's mean active value in units of strength `[n_features]`: `value * |direction| / scale(sigma)`."""
    scale = dictionary.scale
    assert scale is not None
    size = torch.tensor([scale.at(float(s)) for s in sigma.unique()])[sigma.unique(return_inverse=True)[1]]
    total, count = torch.zeros(dictionary.n_features), torch.zeros(dictionary.n_features)
    for start in range(0, len(x), batch):
        code: SparseCode = dictionary.encode(x[start : start + batch])
        share = code.values / size[start : start + batch, None]
        total.index_add_(0, code.indices.flatten(), share.flatten())
        count.index_add_(0, code.indices.flatten(), (code.values != 0).float().flatten())
    return total / count.clamp_min(1) * dictionary.decoder.float().norm(dim=1)
