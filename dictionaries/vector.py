"""Steering vectors: directions at one or several sites that are not from a dictionary, and their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .dictionary import Dictionary, Provenance
from .scale import Scale
from .sparse_code import SparseCode


class VectorAt(Dictionary):
    """A steering vector at one site, as a dictionary of one feature: the code is how much of it is in `x`.

    The coefficient is that of the projection, `x . d / |d|^2`, signed and never sparse.
    """

    kind = "vector"

    def __init__(self, site: str, direction: Tensor, scale: Scale | None = None, provenance: Provenance | None = None):
        super().__init__(site, direction[None], torch.zeros_like(direction), scale=scale, provenance=provenance)

    def _encode(self, x: Tensor, moment: Any) -> SparseCode:
        direction = self.decoder[0].float()
        values = (x @ direction) / direction.square().sum()
        return SparseCode(values[:, None], torch.zeros_like(values, dtype=torch.long)[:, None])


class SteeringVector:
    """One direction `[d_model]` for each of one or several sites, with the scale of the activations there.

    Vectors at the same sites add, subtract and multiply by numbers; scales are kept from the first that has one.

    Raises `ValueError` for directions that are 0, not finite, or of several widths.
    """

    kind = "vector"

    def __init__(
        self,
        directions: Mapping[str, Tensor],
        scales: Mapping[str, Scale] | None = None,
        provenance: Provenance | None = None,
    ):
        if not directions:
            raise ValueError("a steering vector needs a direction at one site at least")
        widths = {tuple(direction.shape) for direction in directions.values()}
        if len(widths) > 1 or len(next(iter(widths))) != 1:
            raise ValueError(f"a steering vector's directions are all [d_model], found shapes {sorted(widths)}")
        for site, direction in directions.items():
            length = float(direction.double().norm())
            if not 0 < length < float("inf"):
                raise ValueError(f"the direction at {site} must be finite and not 0, its length is {length}")
        if unknown := (scales or {}).keys() - directions.keys():
            raise ValueError(f"scales for {', '.join(sorted(unknown))}, where the vector has no direction")
        self.directions = {site: direction.detach().float() for site, direction in directions.items()}
        self.scales = dict(scales or {})
        self.provenance = provenance or Provenance()
        self.d_model = next(iter(widths))[0]
        self._at: dict[str, VectorAt] = {}  # edits of one dictionary share its codes, so it has to be one

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.directions)

    @property
    def model(self) -> dict[str, Any]:
        return self.provenance.model

    def at(self, site: str) -> VectorAt:
        """The vector at one of its sites, as a dictionary of one feature; the same one each time."""
        if site not in self.directions:
            raise ValueError(f"this steering vector is for {', '.join(self.sites)}; it has nothing at {site}")
        if site not in self._at:
            self._at[site] = VectorAt(site, self.directions[site], self.scales.get(site), self.provenance)
        return self._at[site]

    def __add__(self, other: SteeringVector) -> SteeringVector:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, factor: float) -> SteeringVector:
        return self._made({site: factor * d for site, d in self.directions.items()}, self.scales)

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def unit(self) -> SteeringVector:
        """Every direction at length 1."""
        return self._made({site: d / d.norm() for site, d in self.directions.items()}, self.scales)

    def orthogonal_to(self, other: SteeringVector) -> SteeringVector:
        """What is left of it once its part along `other` is taken out, site by site."""

        def without(a: Tensor, b: Tensor) -> Tensor:
            a64, b64 = a.double(), b.double()
            rest = a64 - (a64 @ b64) / (b64 @ b64) * b64
            if float(rest.norm()) <= 1e-6 * float(a64.norm()):
                raise ValueError("the two steering vectors are parallel: nothing is left of the first")
            return rest.float()

        return self._with(other, without)

    def interpolate(self, other: SteeringVector, share: float) -> SteeringVector:
        """Straight between the two: this one at `share` 0, `other` at 1."""
        return self._with(other, lambda a, b: (1 - share) * a + share * b)

    def cosine(self, other: SteeringVector) -> dict[str, float]:
        """Cosine with another vector at each site."""
        self._check(other)
        pairs = {site: (self.directions[site].double(), other.directions[site].double()) for site in self.sites}
        return {site: float(a @ b / (a.norm() * b.norm())) for site, (a, b) in pairs.items()}

    def _check(self, other: SteeringVector) -> None:
        if not isinstance(other, SteeringVector):
            raise TypeError(f"expected a steering vector, found a {type(other).__name__}")
        if set(self.sites) != set(other.sites):
            raise ValueError(f"the vectors are for other sites: {', '.join(self.sites)} and {', '.join(other.sites)}")
        if self.d_model != other.d_model:
            raise ValueError(f"the vectors are of other widths: {self.d_model} and {other.d_model}")

    def _with(self, other: SteeringVector, made: Callable[[Tensor, Tensor], Tensor]) -> SteeringVector:
        self._check(other)
        directions = {site: made(self.directions[site], other.directions[site]) for site in self.sites}
        return self._made(directions, {**other.scales, **self.scales})

    def _made(self, directions: dict[str, Tensor], scales: Mapping[str, Scale]) -> SteeringVector:
        about = replace(self.provenance, metrics={})  # figures of the first do not hold for what was made of it
        return SteeringVector(directions, scales, about)
