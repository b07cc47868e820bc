"""Shares with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z95 = 1.959963984540054


class Share(NamedTuple):
    """A share of `n` cases with its 95 % Wilson interval; nan and [0, 1] where there are no cases."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Share:
        """Wilson 1927, "Probable inference, the law of succession, and statistical inference"."""
        n = len(hits)
        if n == 0:
            return cls(math.nan, 0.0, 1.0, 0)
        p = sum(hits) / n
        center = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
        return cls(p, max(center - half, 0.0), min(center + half, 1.0), n)
