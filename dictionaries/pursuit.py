"""Encoding with given atoms: orthogonal matching pursuit."""

from __future__ import annotations

import torch
from torch import Tensor

from .dictionary import SparseCode


def orthogonal_matching_pursuit(x: Tensor, atoms: Tensor, k: int) -> SparseCode:
    """Signed codes of `x [n, d_model]` with `k` of the unit-norm `atoms [n_atoms, d_model]` each.

    Pati, Rezaiifar and Krishnaprasad 1993: take the atom most correlated with the residual, then fit all chosen
    atoms anew; the residual is never formed, its correlations come from the Gram matrix (Rubinstein et al. 2008,
    "Batch-OMP"). A row whose residual is orthogonal to every atom keeps padding for the rest.
    """
    k = min(k, len(atoms))
    gram, start = atoms @ atoms.T, x @ atoms.T
    correlation = start.clone()
    n = len(x)
    indices = torch.zeros(n, k, dtype=torch.long)
    values = torch.zeros(n, 0)
    alive = torch.ones(n, k, dtype=torch.bool)
    rows = torch.arange(n)
    for step in range(k):
        chosen = correlation.abs().argmax(1)
        alive[:, step] = correlation[rows, chosen].abs() > 1e-6 * x.norm(dim=1)
        if step:
            alive[:, step] &= alive[:, step - 1]
        indices[:, step] = chosen
        support, use = indices[:, : step + 1], alive[:, : step + 1].float()
        # unused places become an identity row, so that one batched solve serves every row
        block = gram[support[:, :, None], support[:, None, :]] * use[:, :, None] * use[:, None, :]
        block = block + torch.diag_embed(1 - use)
        right = start.gather(1, support) * use
        values = torch.linalg.solve(block + 1e-7 * torch.eye(step + 1), right)
        correlation = start - torch.einsum("nj,njm->nm", values, gram[support])
        correlation.scatter_(1, support, 0.0)
    return SparseCode(values * alive, indices * alive)
