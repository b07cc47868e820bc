"""Neurons: a block's hidden MLP units as a dictionary, the baseline that learns nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .dictionary import Dictionary, Provenance
from .scale import Scale
from .sparse_code import SparseCode, weighted_sum


class Neurons(Dictionary):
    """The hidden units of one block's MLP on one stream, at a `.mlp` site: `d_model` units, each its own feature.

    Codes are the `k` largest activations by magnitude, signed. `direction` is the unit's column of the down-projection
    `[d_residual]`, to be added at the block's residual site (`direction_site`). The block multiplies it by a gate that
    depends on sigma and prompt, so it is a direction and no length (arXiv 2505.24360, section 3).

    Raises `ValueError` for a site that is not `.mlp`.
    """

    kind = "neurons"

    def __init__(
        self,
        site: str,
        down_projection: Tensor,
        k: int,
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        super().__init__(
            site,
            down_projection,
            down_projection.new_zeros(down_projection.shape[1]),
            scale=scale,
            natural=natural,
            provenance=provenance,
        )
        if not site.endswith(".mlp"):
            raise ValueError(f"neurons live at an .mlp site such as double.18.img.mlp, found {site}")
        if not 1 <= k <= self.n_features:
            raise ValueError(f"k must lie between 1 and the {self.n_features} neurons, found {k}")
        self.k = k
        self.d_residual = self.d_model
        self.d_model = self.n_features

    @property
    def direction_site(self) -> str:
        return self.site.removesuffix(".mlp")

    def _encode(self, x: Tensor, moment: Any) -> SparseCode:
        indices = x.abs().topk(self.k, dim=-1, sorted=False).indices
        return SparseCode(x.gather(-1, indices), indices)

    def decode(self, code: SparseCode, frame: Any = None) -> Tensor:
        """The hidden units `[..., d_model]` that a code describes: those it names, 0 elsewhere."""
        return code.dense(self.n_features).float()

    def contribution(self, code: SparseCode) -> Tensor:
        """What these units alone write, before the block's gate: `[..., d_residual]`."""
        return weighted_sum(code, self.decoder)
