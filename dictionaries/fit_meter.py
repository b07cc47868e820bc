"""How well a dictionary fits the activations of one run, beside its own figures: measured as they pass by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .dictionary import Dictionary
from .sparse_code import SparseCode

WORSE = 1.5
"""How many times the file's own fvu a run's may be before it is called a misfit."""
MARGIN = 0.05
"""Added to that, so that small figures do not alarm."""
ENOUGH = 100
"""Tokens for each active feature from which a feature that never fires says something."""


class Fit(NamedTuple):
    """A dictionary on one run's tokens.

    Attributes:
        fvu: fraction of variance unexplained, as in docs/design.md; see `reference`.
        unused: share of features that were active on no token.
        l0: mean number of active features a token.
        tokens: how many there were.
        reference: `"training"` where mean and deviation of each channel are the training tokens', as the file carries
            them, or `"run"` where they are this run's own.
    """

    fvu: float
    unused: float
    l0: float
    tokens: int
    reference: str


class FitMeter:
    """Adds up, per channel, what a dictionary leaves unexplained; holds a few vectors `[d_model]`, never tokens."""

    def __init__(self, dictionary: Dictionary):
        known = dictionary.normalization
        self.training = known is not None and known.kind == "standardise"
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        if known is not None and known.mean is not None and known.std is not None and self.training:
            self.mean, self.std = known.mean.double().cpu(), known.std.double().cpu()
        self.count = 0
        self.active = torch.zeros(dictionary.n_features, dtype=torch.bool)
        self.entries = 0
        zero = torch.zeros(dictionary.d_model, dtype=torch.float64)
        self.error, self.sum, self.squares = zero, zero.clone(), zero.clone()

    def add(self, dictionary: Dictionary, x: Tensor, code: SparseCode, moment: object = None) -> None:
        """Activations `x [..., tokens, d_model]` and their codes; `dictionary` is the one, on a device near them."""
        flat = x.reshape(-1, x.shape[-1]).float()
        if self.mean is None:  # only to keep the squares small: sums about any point will do
            self.mean = flat.mean(0).double().cpu()
        found = dictionary.decode(code, dictionary.frame(x, moment)).reshape_as(flat).to(flat.device)
        about = flat - self.mean.to(flat.device, torch.float32)
        for total, part in ((self.error, (flat - found).square()), (self.sum, about), (self.squares, about.square())):
            total += part.sum(0).double().cpu()
        self.count += len(flat)
        on = code.indices[code.values != 0]
        self.active[on.flatten().cpu()] = True
        self.entries += on.numel()

    def fit(self) -> Fit | None:
        """What was found; None where nothing was."""
        if not self.count:
            return None
        if self.std is not None:
            weight, spread = self.std.square().reciprocal(), self.squares
        else:
            spread = self.squares - self.sum.square() / self.count
            # a channel that never moves explains nothing and needs no explaining
            weight = torch.where(spread > 0, self.count / spread.clamp_min(1e-300), torch.zeros_like(spread))
        return Fit(
            fvu=float((self.error * weight).sum() / (spread * weight).sum()),
            unused=float((~self.active).double().mean()),
            l0=self.entries / self.count,
            tokens=self.count,
            reference="training" if self.training else "run",
        )


def describe_fit(dictionary: Dictionary, fit: Fit) -> tuple[str, str | None]:
    """This run's figures beside the file's own, and a warning where they part."""
    metrics, capture = dictionary.provenance.metrics, dictionary.provenance.capture
    own = metrics.get("fvu")
    dead = metrics.get("dead")
    beside = f" (its file says {own:.3f})" if isinstance(own, float) else " (its file says nothing)"
    text = f"{dictionary.site}: fvu {fit.fvu:.3f}{beside}, {fit.l0:.1f} active features a token, "
    text += f"{fit.unused:.0%} of {dictionary.n_features:,} features unused by {fit.tokens:,} tokens"
    text += f" (dead in its file: {dead:.1%})" if isinstance(dead, float) else ""
    text += "" if fit.reference == "training" else "; channels weighed by this run, as the file has no deviations"
    worse = fit.fvu > (WORSE * own + MARGIN if isinstance(own, float) else 1.0)
    expected = dead if isinstance(dead, float) else 0.0
    silent = fit.tokens * fit.l0 > ENOUGH * dictionary.n_features and fit.unused > expected + 0.5
    if not (worse or silent):
        return text, None
    sigmas, height, width = (capture.get(name) for name in ("sigmas", "height", "width"))
    trained = [f"sigma {_range(sigmas)}" if isinstance(sigmas, list) else str(sigmas)] if sigmas else []
    trained += [f"{width}x{height} pixels"] if height and width else []
    made = f"trained at {', '.join(trained)}; " if trained else ""
    found = f"fvu {fit.fvu:.2f}" if worse else f"{fit.unused:.0%} of its features are never active"
    return text, f"this dictionary of {dictionary.site} does not fit this run: {made}here {found}"


def _range(values: list) -> str:
    low, high = min(values), max(values)
    return f"{high:.3g}" if low == high else f"{high:.3g} to {low:.3g}"
