"""The pursuits that were released with the two ITDA papers, step for step, on dense `[n, n_atoms]` coefficients.

Written anew from what the released code does, for comparison; `fluxtionary.dictionaries.pursuit` does not use them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def released_matching_pursuit(x: Tensor, atoms: Tensor, k: int) -> Tensor:
    """Signed matching pursuit as in the release of ITDA (arXiv 2505.17769): `[n, n_atoms]` coefficients.

    Each step multiplies the residual with all atoms, takes the largest magnitude and subtracts that much of the atom.
    """
    rows = torch.arange(len(x), device=x.device)
    residual = x.clone()
    coefficients = x.new_zeros(len(x), len(atoms))
    for _ in range(k):
        products = residual @ atoms.T
        best = products.abs().argmax(dim=1)
        size = products[rows, best]
        coefficients[rows, best] += size
        residual -= size[:, None] * atoms[best]
    return coefficients


def released_gradient_pursuit(x: Tensor, atoms: Tensor, k: int) -> Tensor:
    """Gradient pursuit as in the code of arXiv 2505.24360: `[n, n_atoms]` coefficients, none negative.

    Each step forms the residual from all coefficients, lets the largest signed product join whatever is not 0, moves
    along the gradient on these by the best length (squared length of its image not below 1e-3), and clips at 0.
    """
    coefficients = x.new_zeros(len(x), len(atoms))
    for _ in range(k):
        residual = x - coefficients @ atoms
        products = residual @ atoms.T
        support = (coefficients != 0).scatter(1, products.argmax(dim=1, keepdim=True), True)
        gradient = support * products
        image = gradient @ atoms
        length = (image * residual).sum(dim=1) / image.square().sum(dim=1).clamp_min(1e-3)
        coefficients = (coefficients + length[:, None] * gradient).relu()
    return coefficients
