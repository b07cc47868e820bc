"""The pursuits themselves: each takes `k` steps on all rows at once and gives coefficients and atoms `[n, k]`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .pursuit_residual import Residual

DEPENDENT = 1e-6
"""An atom of which less than this share (squared) lies outside the chosen ones' span counts as in that span."""
CANDIDATES = 8
"""How many of the largest products are compared in float64 where float32 cannot tell."""
BLOCKS = 64
"""Parts in which a long row is searched for its largest entry."""
PIECE = 8
"""Chosen atoms of each row that are made float64 at a time: few, so that they stay in a CPU's cache."""
PAPER_FLOOR = 1e-3
"""Least squared length of the image by which the Flux paper's code divides."""


def matching_pursuit(residual: Residual, k: int, nonnegative: bool) -> Code:
    """Mallat and Zhang 1993, "Matching pursuits with time-frequency dictionaries", section III.

    Each step takes the atom of largest product (in magnitude; non-negative: largest as it is, and none if none is
    positive) and subtracts that much of it. An atom taken again adds to its coefficient, so fewer than `k` may be
    active. A step takes |product|^2 from the squared residual, which therefore never grows.
    """
    code = Code(residual, k)
    for step in range(k):
        atom, product = _largest(residual.correlation, nonnegative)
        taken = product.abs() > residual.noise
        place = code.take(atom, step, taken)
        weight = (product * taken).to(residual.exact)[:, None]
        code.values.scatter_add_(1, place[:, None], weight)
        residual.subtract(atom[:, None], weight)
    return code


def gradient_pursuit(residual: Residual, k: int, nonnegative: bool) -> Code:
    """Blumensath and Davies 2008, "Gradient Pursuits", with the gradient itself as the direction.

    Each step lets the atom of largest product join the support, then moves along the gradient on the support by the
    best length, |gradient|^2 / |image|^2, so that the residual never grows. In the paper an atom of the support may be
    largest again, and the step only moves; here the largest of the others joins, so that `k` steps use `k` atoms.

    Non-negative: only a positive product joins; coefficients at 0 that would shrink stay there; the move is clipped
    at 0, and backtracks to the best point on the straight way to the clipped end, so that the residual never grows
    here either.
    """
    code = Code(residual, k)
    gram = residual.norm.new_zeros(len(residual.x), k, k)
    for step in range(k):
        correlation = residual.correlation
        atom, product = _largest_other(correlation, code.support[:, :step], code.taken[:, :step], nonnegative)
        place = code.take(atom, step, product.abs() > residual.noise)
        support, values = code.support[:, : step + 1], code.values[:, : step + 1]
        block = _filled(gram, residual, support, place)
        gradient = correlation.gather(1, support).to(residual.exact) * code.taken[:, : step + 1]
        if nonnegative:
            gradient = gradient * ((values > 0) | (gradient > 0))
        change = _best_length(residual, gradient, block)[:, None] * gradient
        if nonnegative:
            change = _cut_back((values + change).relu() - values, gradient, block)
        values += change
        residual.subtract(support, change)
    return code


def paper_gradient_pursuit(residual: Residual, k: int, nonnegative: bool) -> Code:
    """The variant of "Interpreting Large Text-to-Image Diffusion Models with Dictionary Learning" (arXiv 2505.24360).

    As its code has it: whatever is not 0 and the atom of largest *signed* product are the support, the step has the
    best length along the gradient on it (|image|^2 taken as at least `PAPER_FLOOR`), then negative coefficients
    become 0. An atom may be chosen twice, one that became 0 leaves, and after the clipping the residual may have
    grown: fewer than `k` end up active. It is non-negative either way.
    """
    code = Code(residual, k)
    gram = residual.norm.new_zeros(len(residual.x), k, k)
    for step in range(k):
        correlation = residual.correlation
        atom, _, _ = _first_two(correlation)
        place = code.take(atom, step, torch.ones_like(atom, dtype=torch.bool))
        support, values = code.support[:, : step + 1], code.values[:, : step + 1]
        block = _filled(gram, residual, support, place)
        active = (values != 0).scatter(1, place[:, None], True)
        gradient = correlation.gather(1, support).to(residual.exact) * active
        length = gradient.square().sum(1) / _energy(gradient, block).clamp_min(PAPER_FLOOR)
        change = (values + length[:, None] * gradient).relu() - values
        values += change
        residual.subtract(support, change)
    return code


def orthogonal_matching_pursuit(residual: Residual, k: int, nonnegative: bool) -> Code:
    """Pati, Rezaiifar and Krishnaprasad 1993, in the Gram-only form of Rubinstein et al. 2008 (Batch-OMP, algorithm 2).

    Each step takes the atom of largest product and fits all chosen ones anew. Where Batch-OMP grows a Cholesky
    factor, the inverse of the chosen atoms' Gram block is kept, which one atom can also leave: a rank-one update
    either way. Coefficients are refined once in float64 at the end.

    A row ends, padded, when no product is above rounding, or when the best atom lies in the span of those chosen (as
    a duplicate of one does): it is not taken.

    Non-negative: the largest positive product; the fit is the non-negative one on the support by the inner loop of
    Lawson and Hanson 1974, chapter 23 (Bruckstein, Elad and Zibulevsky 2008 pursue so); what reaches 0 leaves.
    """
    code = Code(residual, k)
    inverse = residual.norm.new_zeros(len(residual.x), k, k)
    running = residual.norm > 0
    for step in range(k):
        atom, product, running = _largest_exactly(residual, nonnegative, code, inverse, running)
        code.support[:, step] = atom
        support, values = code.support[:, : step + 1], code.values[:, : step + 1]
        direction, running = _direction(residual, support, inverse, running)
        if not bool(running.any()):
            break
        change = product * direction
        if nonnegative:
            change = _lawson_hanson(values, values + change, inverse[:, : step + 1, : step + 1]) - values
        values += change
        residual.subtract(support, change)
    code.values = _refined(residual, slice(None), code, inverse)
    if nonnegative:
        code.values.relu_()
    return code


class Code:
    """Atoms taken so far and how much of each, `[n, k]`: a place a step; a place that stays empty has value 0."""

    def __init__(self, residual: Residual, k: int):
        self.values = residual.norm.new_zeros(len(residual.x), k)
        self.support = torch.zeros(self.values.shape, dtype=torch.long, device=residual.x.device)
        self.taken = torch.zeros_like(self.support, dtype=torch.bool)

    def take(self, atom: Tensor, step: int, wanted: Tensor) -> Tensor:
        """Where `atom [n]` stands, `[n]`: its place if it was taken before, or else the step's, if it is `wanted`."""
        before = (self.support[:, : step + 1] == atom[:, None]) & self.taken[:, : step + 1]
        known = before.any(1)
        place = before.int().argmax(1).where(known, step)
        self.support.scatter_(1, place[:, None], atom[:, None])
        self.taken.scatter_(1, place[:, None], (wanted | known)[:, None])
        return place


def _largest(correlation: Tensor, nonnegative: bool) -> tuple[Tensor, Tensor]:
    """The atom of largest product and that product, both `[n]`; a negative one counts as 0 if `nonnegative`."""
    atom, _, _ = _first_two(correlation if nonnegative else correlation.abs())
    product = correlation.gather(1, atom[:, None])[:, 0]
    return atom, product.relu() if nonnegative else product


def _largest_other(correlation: Tensor, support: Tensor, taken: Tensor, nonnegative: bool) -> tuple[Tensor, Tensor]:
    """`_largest` among the atoms that are not `taken [n, s]` of `support [n, s]`."""
    kept = correlation.gather(1, support)
    correlation.scatter_(1, support, kept * ~taken)
    found = _largest(correlation, nonnegative)
    correlation.scatter_(1, support, kept)
    return found


def _first_two(size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the largest of `size [n, n_atoms]` is, its value, and the second largest value, each `[n]`.

    On long rows through the largest of each of `BLOCKS` blocks: a plain maximum is several times as fast as a search.
    """
    n_atoms = size.shape[1]
    width = n_atoms // BLOCKS
    if width < BLOCKS:
        best = size.topk(min(2, n_atoms), dim=1).values
        return size.argmax(1), best[:, 0], best[:, -1]  # argmax takes the first of equals, topk any
    # columns that fill no block are blocks of their own
    highest = torch.cat([size[:, : BLOCKS * width].unflatten(1, (BLOCKS, width)).amax(2), size[:, BLOCKS * width :]], 1)
    blocks = highest.topk(2, dim=1).values
    start = (highest.argmax(1, keepdim=True) * width).clamp_max(n_atoms - width)
    inside = size.gather(1, start + torch.arange(width, device=size.device))
    best = inside.topk(2, dim=1).values
    return (start[:, 0] + inside.argmax(1)), best[:, 0], torch.maximum(best[:, 1], blocks[:, 1])


def _applied(matrix: Tensor, vector: Tensor) -> Tensor:
    """Symmetric `matrix [n, s, s]` times `vector [n, s]`; from the left, which is several times as fast on a CPU."""
    return torch.bmm(vector[:, None, :], matrix)[:, 0]


def _filled(gram: Tensor, residual: Residual, support: Tensor, place: Tensor) -> Tensor:
    """The part of `gram [n, k, k]` that `support [n, s]` uses, the atom at `place [n]` filled in."""
    block = gram[:, : support.shape[1], : support.shape[1]]
    products = residual.products(support.gather(1, place[:, None])[:, 0], support)
    rows = torch.arange(len(place), device=place.device)
    block[rows, place] = products
    block[rows, :, place] = products
    return block


def _energy(weights: Tensor, block: Tensor) -> Tensor:
    """Squared length `[n]` of what `weights [n, s]` of atoms with Gram `block [n, s, s]` add up to."""
    return (weights * _applied(block, weights)).sum(1)


def _best_length(residual: Residual, gradient: Tensor, block: Tensor) -> Tensor:
    """How far along the gradient the residual is shortest, `[n]`; 0 where the gradient is 0."""
    square = gradient.square().sum(1)
    tiny = torch.finfo(square.dtype).tiny
    # |gradient|^2 = <image, residual> <= |image| |x|: a bound that rounding of nearly dependent atoms cannot pass
    least = (square / residual.norm.clamp_min(tiny)).square()
    return square / _energy(gradient, block).maximum(least).clamp_min(tiny)


def _cut_back(change: Tensor, gradient: Tensor, block: Tensor) -> Tensor:
    """As much of `change [n, s]` as shortens the residual most, at most all of it."""
    tiny = torch.finfo(change.dtype).tiny
    gain, cost = (change * gradient).sum(1), _energy(change, block).clamp_min(tiny)
    return change * (gain / cost).clamp(0, 1)[:, None]


def _direction(residual: Residual, support: Tensor, inverse: Tensor, running: Tensor) -> tuple[Tensor, Tensor]:
    """How coefficients change per unit of the newest atom's product, `[n, s]`, and which rows still run.

    With g the newest atom's products with the others, u = inverse g and r = 1 - g u what lies outside their span:
    [-u, 1] / r. `inverse [n, k, k]` is updated by the block inverse, inverse + r direction direction^T.
    """
    products = residual.products(support[:, -1], support)
    last = products.shape[1] - 1
    inside = _applied(inverse[:, :last, :last], products[:, :last])
    direction = torch.cat([inside.neg_(), products.new_ones(len(products), 1)], 1)
    outside = (products * direction).sum(1)
    running = running & (outside > DEPENDENT)
    # a row that does not run has direction 0
    scaled = direction / outside.where(running, torch.inf)[:, None]
    inverse[:, : last + 1, : last + 1].addcmul_(direction[:, :, None], scaled[:, None, :])
    return scaled, running


def _lawson_hanson(values: Tensor, wanted: Tensor, inverse: Tensor) -> Tensor:
    """The non-negative fit: coefficients that reach 0 on the way from `values` to `wanted`, both `[n, s]`, leave.

    `wanted` is the free fit on the atoms in use, those with an entry on the diagonal of `inverse [n, s, s]`, which
    loses the row and column of each that leaves.
    """
    while True:
        short = (inverse.diagonal(dim1=1, dim2=2) > 0) & (wanted <= 0)
        leaving = short.any(1)
        if not bool(leaving.any()):
            return wanted
        span = (values - wanted).clamp_min(torch.finfo(values.dtype).tiny)
        reach, place = (values / span).where(short, 1).min(1)
        stays = torch.ones_like(values).scatter_(1, place[:, None], (~leaving).to(values.dtype)[:, None])
        values = (values + reach[:, None] * (wanted - values)) * stays
        column = inverse.gather(2, place[:, None, None].expand(-1, inverse.shape[1], 1))[:, :, 0]
        pivot = column.gather(1, place[:, None]).where(leaving[:, None], 1)
        column = column * leaving[:, None]
        wanted = (wanted - column * wanted.gather(1, place[:, None]) / pivot) * stays
        inverse -= column[:, :, None] * (column / pivot)[:, None, :]
        inverse *= stays[:, :, None] * stays[:, None, :]


def _largest_exactly(
    residual: Residual, nonnegative: bool, code: Code, inverse: Tensor, running: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The atom of largest product `[n]`, that product `[n, 1]`, and which rows have one above rounding.

    Where float32 cannot tell the largest apart, products in float64 decide.
    """
    correlation = residual.correlation
    size = correlation if nonnegative else correlation.abs()
    atom, first, second = _first_two(size)
    running = running & (first > residual.noise)
    tied = running & (first - second <= residual.tie)
    if bool(tied.any()):
        rows = tied.nonzero()[:, 0]
        # sorted, so that of equal atoms the first is taken
        candidates = size[rows].topk(min(CANDIDATES, size.shape[1]), dim=1).indices.sort(1).values
        chosen = F.embedding(code.support[rows], residual.atoms)
        left = _left(residual.x[rows], chosen, _refined(residual, rows, code, inverse))[:, None, :]
        exact = torch.bmm(left, F.embedding(candidates, residual.atoms).to(left.dtype).transpose(1, 2))[:, 0]
        winner = (exact if nonnegative else exact.abs()).argmax(1)
        atom[rows] = candidates.gather(1, winner[:, None])[:, 0]
    return atom, correlation.gather(1, atom[:, None]), running


def _refined(residual: Residual, rows: Tensor | slice, code: Code, inverse: Tensor) -> Tensor:
    """Coefficients of `rows`, `[rows, k]`, after one round of refinement: the inverse applied to what they leave."""
    chosen, values = F.embedding(code.support[rows], residual.atoms), code.values[rows]
    left = _left(residual.x[rows], chosen, values)[:, None, :].float()
    return values + _applied(inverse[rows], torch.bmm(left, chosen.transpose(1, 2))[:, 0].to(residual.exact))


def _left(x: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """What `values [n, s]` of atoms `chosen [n, s, d_model]` leave of `x [n, d_model]`, in the type of `values`."""
    left = x.to(values.dtype)
    for start in range(0, values.shape[1], PIECE):
        piece = slice(start, start + PIECE)
        left -= torch.bmm(values[:, None, piece], chosen[:, piece].to(values.dtype))[:, 0]
    return left
