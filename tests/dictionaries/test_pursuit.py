import itertools

import numpy as np
import torch
from sklearn.linear_model import orthogonal_mp

from fluxtionary.dictionaries.pursuit import orthogonal_matching_pursuit


def problem(n=40, d=24, atoms=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(atoms, d, generator=generator), dim=1)
    return torch.randn(n, d, generator=generator), unit


def dense(code, atoms):
    return torch.zeros(len(code.values), atoms).scatter_add_(1, code.indices, code.values)


def test_it_agrees_with_scikit_learn():
    x, atoms = problem()
    found = dense(orthogonal_matching_pursuit(x, atoms, 6), len(atoms))
    expected = torch.from_numpy(
        np.ascontiguousarray(orthogonal_mp(atoms.T.numpy(), x.T.numpy(), n_nonzero_coefs=6).T)
    ).float()
    same = ((found != 0) == (expected != 0)).all(1)
    assert same.float().mean() >= 0.95
    assert torch.allclose(found[same], expected[same], atol=1e-3)


def test_the_error_never_grows_with_k():
    x, atoms = problem()
    errors = [
        (x - dense(orthogonal_matching_pursuit(x, atoms, k), len(atoms)) @ atoms).norm(dim=1) for k in (1, 2, 4, 8, 16)
    ]
    for less, more in itertools.pairwise(errors):
        assert (more <= less + 1e-4).all()


def test_what_atoms_span_is_found_and_the_rest_is_padding():
    _, atoms = problem()
    x = 2.0 * atoms[[3, 9]] - 1.0 * atoms[[5, 9]]
    code = orthogonal_matching_pursuit(x, atoms, 5)
    assert torch.allclose(dense(code, 60) @ atoms, x, atol=1e-4)
    assert torch.equal(orthogonal_matching_pursuit(torch.zeros(2, 24), atoms, 5).values, torch.zeros(2, 5))


def test_more_atoms_than_there_are_cannot_be_used():
    x, atoms = problem(atoms=4)
    assert orthogonal_matching_pursuit(x, atoms, 9).values.shape == (40, 4)
