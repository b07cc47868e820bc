"""What an ITDA dictionary is built of: tokens that the atoms so far do not explain become atoms themselves.

Leask, Nanda and Al Moubayed 2025, "Inference-Time Decomposition of Activations" (arXiv 2505.17769), there with every
such token of a batch at once; here the worst first, and the others only while they are still not explained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dictionaries import ITDA, Normalization, Provenance, Scale, Sources
from ..dictionaries.pursuit import METHODS
from ..dictionaries.scale import ScaleMeter
from ..residual import Site
from ..residual.tokens import Tokens
from .atoms import Atoms
from .sae import TrainingError
from .stream import ActivationStream

RULES = ("paper", "per_token")
ERRORS = ("fvu", "cosine")
SOURCE = ("prompt", "seed", "sigma", "row", "column")
"""What is known of where an atom came from; a text token has row 0, and its place in the prompt as its column."""
CONSIDERED = 256
"""Tokens of a batch, the worst, that are compared with one another at a time."""


@dataclass(frozen=True)
class ITDABuild:
    """How an ITDA dictionary is built."""

    atoms: int = 1536
    """Most atoms."""
    k: int = 16
    """Atoms a token is explained with, at most."""
    rule: str = "per_token"
    """paper: a token's squared error over the variance of its batch; per_token: over what is its own."""
    error: str = "fvu"
    """With per_token: fvu, the squared error over the squared distance from the mean; or cosine, 1 - cosine."""
    threshold: float = 0.13
    """Error above which a token becomes an atom."""
    tokens: int = 30_000
    """Most tokens to look at."""
    per_picture: int | None = 32
    """Tokens of each picture that are looked at, drawn by seed; None for all of them."""
    batch: int = 2048
    """Tokens judged together, at most."""
    method: str = "omp"
    """Pursuit that explains a token: omp, gp, gp_paper or mp."""
    nonnegative: bool = False
    """Explain with non-negative coefficients only."""
    centre: bool = True
    """Take the mean away before tokens are explained, besides dividing by the deviation of each channel."""
    patience: int = 10_000
    """Tokens in a row of which hardly any became atoms after which the dictionary is complete."""
    least: float = 0.001
    """Share of these tokens that must become atoms for it to go on."""
    reference: int = 4096
    """Tokens, the first, that mean, deviation, scale and natural values are measured on."""
    seed: int = 0
    """Seed of which tokens are looked at, and in which order."""

    def __post_init__(self) -> None:
        for name in ("atoms", "k", "tokens", "batch", "patience", "reference", "per_picture"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{name} must be at least 1, found {value}")
        for name, known in (("rule", RULES), ("error", ERRORS), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} is one of {', '.join(known)}; found {getattr(self, name)!r}")
        if self.rule == "paper" and self.error != "fvu":
            raise TrainingError(f"the paper's rule is about the squared error: leave error at fvu, found {self.error}")
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise TrainingError(f"threshold must be above 0, found {self.threshold}")
        if not 0 <= self.least <= 1:
            raise TrainingError(f"least is a share, 0 to 1; found {self.least}")
        if self.k > self.atoms:
            raise TrainingError(f"k = {self.k} atoms a token need at least as many atoms, found {self.atoms}")


class Step(NamedTuple):
    """What came of one batch: tokens looked at, atoms added, and the FVU of its tokens before they were added."""

    tokens: int
    added: int
    fvu: float


class _Progress(NamedTuple):
    """How far a build is, after whole batches; one object, so that an interruption never finds half of it."""

    tokens: int = 0
    atoms: int = 0
    groups: int = 0
    recent: tuple[tuple[int, int], ...] = ()  # tokens and atoms of the last batches, as many as patience looks at
    place: tuple[int, int] = (0, 0)
    stopped: str | None = None


class ITDABuilder:
    """Atoms so far, and what decides on the next.

    Args:
        reference: tokens that normalization, scale and natural values are measured on. They are kept, and are not
            looked at for atoms unless they are added too.
        config: how to build.
    """

    def __init__(self, reference: Tokens, config: ITDABuild):
        x = reference.x.float()
        meter = ScaleMeter(x.shape[1])
        meter.add(x, reference.sigma)
        self._begin(reference, config, Normalization.fit(x), meter.scale())

    def _begin(self, reference: Tokens, config: ITDABuild, fitted: Normalization, scale: Scale) -> None:
        assert fitted.mean is not None and fitted.std is not None
        self.config, self.reference, self.scale, self.fitted = config, reference, scale, fitted
        mean = fitted.mean if config.centre else torch.zeros_like(fitted.mean)
        self.normalization = Normalization(mean, fitted.std)
        self.mean = (fitted.mean - mean) / fitted.std  # of normalized tokens
        self.atoms = Atoms(config.atoms, len(mean))
        self._sources: list[Tokens] = []  # each without its x
        self._progress = _Progress()

    @property
    def tokens(self) -> int:
        """Tokens looked at."""
        return self._progress.tokens

    @property
    def place(self) -> tuple[int, int]:
        """Where the last batch ended, as `add` was told."""
        return self._progress.place

    @property
    def finished(self) -> str | None:
        """Why no more tokens are wanted: `atoms`, `tokens` or `patience`; None while they are."""
        return self._progress.stopped

    @torch.no_grad()
    def add(self, tokens: Tokens, place: tuple[int, int] = (0, 0)) -> Step:
        """Look at a batch of tokens `[n, d_model]`, or at as many of them as are still to be looked at.

        `place` is where the stream stands after it, kept with the state. Raises `ValueError` for tokens that are not
        finite or of another width.
        """
        before = self._progress
        tokens = tokens.rows(slice(0, self.config.tokens - before.tokens))
        z = self.normalization.apply(tokens.x.float())
        batch = _Batch(self.atoms, z, self.mean, self.config)
        fvu = batch.fvu()
        for chosen in batch.choices():
            self._sources.append(tokens._replace(x=tokens.x[:, :0]).rows(chosen))
            self.atoms.add(z[chosen])
        step = Step(len(z), len(self.atoms) - before.atoms, fvu)
        recent = self._recent(step)
        now = before.tokens + step.tokens
        self._progress = _Progress(
            now, len(self.atoms), len(self.atoms.groups), recent, place, self._stopped(now, recent)
        )
        return step

    def _recent(self, step: Step) -> tuple[tuple[int, int], ...]:
        """The last batches, as few as have `patience` tokens together."""
        recent = (*self._progress.recent, (step.tokens, step.added))
        while sum(tokens for tokens, _ in recent[1:]) >= self.config.patience:
            recent = recent[1:]
        return recent

    def _stopped(self, tokens: int, recent: tuple[tuple[int, int], ...]) -> str | None:
        if len(self.atoms) >= self.config.atoms:
            return "atoms"
        if tokens >= self.config.tokens:
            return "tokens"
        seen, added = (sum(column) for column in zip(*recent, strict=True))
        return "patience" if seen >= self.config.patience and added < self.config.least * seen else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a build goes on from, as `save_checkpoint` takes it: as it was after the last whole batch."""
        progress = self._progress
        assert self.fitted.mean is not None and self.fitted.std is not None
        sources = self._joined()
        tensors = {
            "atoms": self.atoms.rows[: progress.atoms],
            "groups": torch.tensor(self.atoms.groups[: progress.groups], dtype=torch.long),
            "mean": self.fitted.mean,
            "std": self.fitted.std,
            "scale": self.scale.values,
        }
        tensors |= {f"sources.{name}": getattr(sources, name)[: progress.atoms] for name in Tokens._fields[1:]}
        tensors |= {f"reference.{name}": getattr(self.reference, name) for name in Tokens._fields}
        return tensors, {"config": asdict(self.config), "progress": progress._asdict()}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> ITDABuilder:
        """The builder whose `state` this was."""
        self = cls.__new__(cls)
        reference = Tokens(*(tensors[f"reference.{name}"] for name in Tokens._fields))
        fitted = Normalization(tensors["mean"], tensors["std"])
        self._begin(reference, ITDABuild(**state["config"]), fitted, Scale(tensors["scale"]))
        self.atoms.restore(tensors["atoms"], tensors["groups"].tolist())
        none = torch.zeros(len(self.atoms), 0)
        self._sources = [Tokens(none, *(tensors[f"sources.{name}"] for name in Tokens._fields[1:]))]
        found = dict(state["progress"])
        recent = tuple((int(tokens), int(added)) for tokens, added in found.pop("recent"))
        number, offset = found.pop("place")
        self._progress = _Progress(**found, recent=recent, place=(number, offset))
        return self

    def _joined(self) -> Tokens:
        return Tokens.joined(self._sources or [self.reference.rows(slice(0, 0))])

    def dictionary(self, site: Site, stream: ActivationStream, seconds: float = 0.0) -> ITDA:
        """The atoms so far as a dictionary of a site of the stream that the tokens came from."""
        if not len(self.atoms):
            raise TrainingError(
                f"no token of {self.tokens} had an error above the threshold of {self.config.threshold}, "
                "so there are no atoms: lower the threshold"
            )
        training = asdict(self.config) | {
            "looked_at": self.tokens,
            "added": len(self.atoms),
            "seconds": round(seconds, 1),
            "stopped": self.finished or "stream",
        }
        dictionary = ITDA(
            str(site),
            self.atoms.rows.clone(),
            self.config.k,
            self.config.method,
            self.config.nonnegative,
            self.normalization,
            _sources(self._joined(), site, stream),
            self.scale,
            provenance=Provenance(stream.model, stream.header | {"n_tokens": self.tokens}, training),
        )
        dictionary.natural = _natural(dictionary, self.reference)
        return dictionary


class _Batch:
    """The tokens of one batch in normalized space, and how badly each is explained."""

    def __init__(self, atoms: Atoms, z: Tensor, mean: Tensor, config: ITDABuild):
        self.atoms, self.z, self.config = atoms, z, config
        self.own = (z - mean).square().sum(1)
        tiny = torch.finfo(z.dtype).eps * z.shape[1]
        if config.rule == "paper":
            self.whole = (z - z.mean(0)).square().sum(1).mean().clamp_min(tiny).expand(len(z))
        else:
            self.whole = self.own.clamp_min(tiny)
        self.left, self.error = torch.zeros_like(z), torch.zeros(len(z))
        self._judge(torch.arange(len(z)))

    def fvu(self) -> float:
        """Squared error of all tokens over their squared distance from the mean, as they are now."""
        return float(self.left.double().square().sum() / self.own.double().sum().clamp_min(1e-12))

    def _judge(self, which: Tensor) -> None:
        """Explain tokens with the atoms so far."""
        z = self.z[which]
        _, left = self.atoms.encode(z, self.config.k, self.config.method, self.config.nonnegative)
        self.left[which] = left
        if self.config.error == "cosine":
            self.error[which] = (1 - torch.cosine_similarity(z, z - left)) * z.any(1)
        else:
            self.error[which] = left.square().sum(1) / self.whole[which]

    def choices(self) -> Iterator[Tensor]:
        """Groups of tokens to be added before the next is asked for, until none is badly explained, or no room left.

        The worst first. What a token's error was before the last additions bounds what it is now (nearly: a greedy
        pursuit may do worse with more atoms), so only the worst are explained again each time.
        """
        waiting = (self.error > self.config.threshold).nonzero()[:, 0]
        current = torch.ones(len(self.z), dtype=torch.bool)
        while len(waiting) and len(self.atoms) < self.config.atoms:
            waiting = waiting[self.error[waiting].argsort(descending=True, stable=True)]
            worst, rest = waiting[:CONSIDERED], waiting[CONSIDERED:]
            if len(stale := worst[~current[worst]]):
                self._judge(stale)
                current[stale] = True
            worst = worst[self.error[worst] > self.config.threshold]
            worst = worst[self.error[worst].argsort(descending=True, stable=True)]
            if len(worst):
                chosen = self._apart(worst, self.config.atoms - len(self.atoms))
                yield worst[chosen]
                current[:] = False
                worst = worst[~chosen]
            waiting = torch.cat([worst, rest])

    def _apart(self, worst: Tensor, room: int) -> Tensor:
        """Which of the tokens `worst` would still be badly explained if those before them had been added: a mask.

        Of a token's error, what lies in the span of the errors of those chosen counts as explained: that is at least
        what so many more atoms could explain. So of tokens that are alike one is chosen, and the rest are explained
        with it first.
        """
        left, error = self.left[worst].clone(), self.error[worst]
        whole = left.square().sum(1)
        chosen = torch.zeros(len(worst), dtype=torch.bool)
        for place in range(len(worst)):
            rest = left.square().sum(1)
            if error[place] * rest[place] / whole[place] > self.config.threshold:
                chosen[place] = True
                left -= torch.outer(left @ left[place], left[place] / rest[place])
                room -= 1
            if not room:
                break
        return chosen


def _sources(tokens: Tokens, site: Site, stream: ActivationStream) -> Sources:
    """Where tokens came from, in words and numbers that mean the same in another capture."""
    places: dict[str, int] = {}
    numbers = [places.setdefault(stream.prompts[picture], len(places)) for picture in tokens.picture.tolist()]
    seeds = [stream.seeds[picture] for picture in tokens.picture.tolist()]
    columns = stream.grid[1]
    image = site.stream == "img"
    row = tokens.position // columns if image else torch.zeros_like(tokens.position)
    column = tokens.position % columns if image else tokens.position
    found = [torch.tensor(numbers), torch.tensor(seeds), tokens.sigma, row, column]
    return Sources(SOURCE, torch.stack([values.double() for values in found], 1), tuple(places))


def _natural(dictionary: ITDA, tokens: Tokens, batch: int = 8192) -> Tensor:
    """Each atom's mean active value in units of strength `[n_features]`: `value * |direction| / scale(sigma)`."""
    assert dictionary.scale is not None and dictionary.normalization is not None
    scale, normalization = dictionary.scale, dictionary.normalization
    assert normalization.std is not None
    levels, which = tokens.sigma.unique(return_inverse=True)
    size = torch.tensor([scale.at(level) for level in levels.tolist()])[which]
    total, count = torch.zeros(dictionary.n_features), torch.zeros(dictionary.n_features)
    for start in range(0, len(tokens.x), batch):
        part = slice(start, start + batch)
        code = dictionary.encode(tokens.x[part])
        total.index_add_(0, code.indices.flatten(), (code.values / size[part, None]).flatten())
        count.index_add_(0, code.indices.flatten(), (code.values != 0).float().flatten())
    return total / count.clamp_min(1) * (dictionary.atoms * normalization.std).norm(dim=1)
