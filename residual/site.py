"""Sites: the named points of Flux's residual stream."""

from __future__ import annotations

import re
from typing import NamedTuple

PARTS = ("output", "update", "mlp")


class SiteError(ValueError):
    """A site that does not exist: in this notation, or in this model."""


class Site(NamedTuple):
    """The output of one block on one stream, such as `double.18.img`.

    `part` is `output` (the residual stream after the block), `update` (output minus input) or `mlp` (the block's
    hidden MLP units after the activation, which have a space of their own).
    """

    stage: str
    block: int
    stream: str
    part: str = "output"

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """`double.18.img`, `single.9.txt`, `double.18.img.update`, `double.18.img.mlp`."""
        if isinstance(text, Site):
            return text
        match = re.fullmatch(r"(double|single)\.(0|[1-9]\d{0,3})\.(img|txt)(?:\.(update|mlp))?", text.strip())
        if not match:
            raise SiteError(
                f"{text!r} is no site: expected stage.block.stream such as double.18.img or single.9.txt, "
                "optionally followed by .update or .mlp"
            )
        stage, block, stream, part = match.groups()
        return cls(stage, int(block), stream, part or "output")

    def __str__(self) -> str:
        name = f"{self.stage}.{self.block}.{self.stream}"
        return name if self.part == "output" else f"{name}.{self.part}"

    def check_depth(self, double_blocks: int, single_blocks: int) -> None:
        """Raise `SiteError` unless a model of this depth has the site."""
        blocks = double_blocks if self.stage == "double" else single_blocks
        if self.block >= blocks:
            raise SiteError(
                f"this model has no {self}: it has {double_blocks} double and {single_blocks} single blocks, "
                f"so {self.stage}.0 to {self.stage}.{blocks - 1}"
                if blocks
                else f"this model has no {self}: it has no {self.stage} blocks"
            )
