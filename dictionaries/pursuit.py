"""Encoding with given atoms by pursuit: matching pursuit, gradient pursuit, orthogonal matching pursuit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from .pursuit_methods import (
    Code,
    gradient_pursuit,
    matching_pursuit,
    orthogonal_matching_pursuit,
    paper_gradient_pursuit,
)
from .pursuit_residual import GramResidual, PlainResidual, Residual
from .sparse_code import SparseCode

_METHODS: dict[str, Callable[[Residual, int, bool], Code]] = {
    "mp": matching_pursuit,
    "gp": gradient_pursuit,
    "gp_paper": paper_gradient_pursuit,
    "omp": orthogonal_matching_pursuit,
}
METHODS = tuple(_METHODS)
"""What `pursue` can do."""

UNIT = 1e-2
"""How far an atom's length may be from 1: room for atoms stored in half precision."""
CACHE = 32 * 2**20
"""Bytes of Gram rows that groups pursued side by side may use on a CPU: in its cache they are ten times as fast."""
PRODUCTS = 4 * 2**20
"""Bytes of products with all atoms that groups may have: all of them are read at every step."""
LEAST = 4
"""Rows in a group on a CPU even so: fewer would cost more in calls than the cache saves."""
MANY = 512
"""Rows on a CPU whose first products with all atoms are worked out together."""
WORKERS = 4
"""Threads that pursue side by side on a CPU; Python gets in the way of more."""
BLOCK = 2048
"""Rows of the Gram matrix worked out at a time."""
GATHER_COST = {"cpu": 4.0}
"""What multiplying with gathered Gram rows costs, in products of the same size that need no gathering (other: 25)."""


@torch.no_grad()
def pursue(
    x: Tensor,
    atoms: Tensor,
    k: int,
    method: str = "omp",
    *,
    nonnegative: bool = False,
    gram: Tensor | None = None,
    memory: int = 2**30,
) -> SparseCode:
    """Codes of `x [..., d_model]` with at most `k` of `atoms [n_atoms, d_model]` each.

    Both are taken in float32, whatever their float type. Atoms have length 1 (to within `UNIT`); an atom of zeros is
    allowed and never chosen. Of equal atoms one is chosen; `"gp"` may take a second when the others explain less.

    Args:
        method: one of `METHODS`, which `pursuit_methods` describes one by one. `"mp"` and `"gp_paper"` may choose an
            atom again and then have fewer than `k` active; `"gp"` and `"omp"` do not, and `"omp"` is the most exact.
        nonnegative: no negative coefficient; `"gp_paper"` never has any.
        gram: `gram_of(atoms)`. With it a step costs a few rows of it; without it a product with all atoms, or a Gram
            matrix is made for this call, where that is less work and takes at most half the `memory`.
        memory: bytes to work in, beside `x`, `atoms` and `gram` (and their float32 copies where they are not
            float32); rows are pursued so many at a time as fit, at least one.

    Returns:
        float32 values and int64 indices `[..., min(k, n_atoms)]`. Places not needed have value 0 and index 0: where
        nothing is left to explain, a row of zeros for one.

    Raises:
        ValueError: for an unknown method, k below 0, shapes that do not fit, atoms not of unit length, and values
            that are not finite.
    """
    _check(x, atoms, k, method, gram)
    rows, atoms = x.reshape(-1, x.shape[-1]).float(), atoms.float()
    k = min(k, len(atoms))
    code = SparseCode(
        torch.zeros(len(rows), k, device=x.device), torch.zeros(len(rows), k, dtype=torch.long, device=x.device)
    )
    # host programs may run this under autocast, whose half-precision products would choose other atoms
    with torch.autocast(x.device.type, enabled=False):
        _check_values(rows, atoms, gram)
        if k and len(rows):
            if gram is None and _gram_pays(rows, atoms, k, method, memory):
                gram = gram_of(atoms)
                memory -= gram.nbytes

            def pursuit(residual: Residual) -> Code:
                return _METHODS[method](residual, k, nonnegative)

            if gram is None:
                _pursue_plain(rows, atoms, pursuit, code, memory)
            else:
                _pursue_gram(rows, atoms, pursuit, code, gram, 1 if method == "mp" else k, memory)
    shape = (*x.shape[:-1], k)
    return SparseCode(code.values.reshape(shape), code.indices.reshape(shape))


@torch.no_grad()
def gram_of(atoms: Tensor) -> Tensor:
    """Products of `atoms [n_atoms, d_model]` with one another, float32 `[n_atoms, n_atoms]`, made block by block.

    Only one half is worked out. It takes 4 n_atoms^2 bytes: 1.1 GB for 16,384 atoms.
    """
    gram = torch.empty(len(atoms), len(atoms), device=atoms.device)
    with torch.autocast(atoms.device.type, enabled=False):
        for start in range(0, len(atoms), BLOCK):
            end = start + BLOCK
            for other in range(start, len(atoms), BLOCK):
                upper = gram[start:end, other : other + BLOCK]
                torch.mm(atoms[start:end].float(), atoms[other : other + BLOCK].float().T, out=upper)
                if other != start:
                    gram[other : other + BLOCK, start:end] = upper.T
    return gram


def _row_bytes(atoms: Tensor, k: int) -> int:
    """Memory that pursuing one row takes, in bytes: an upper bound for every method."""
    n_atoms, d_model = atoms.shape
    # Gram block or inverse, and its update; the chosen atoms in float32 and float64; products, and passes over them
    return 4 * 8 * k * k + 12 * k * d_model + 4 * 4 * n_atoms + 24 * d_model


def _pursue_plain(x: Tensor, atoms: Tensor, pursuit: Callable[[Residual], Code], code: SparseCode, memory: int) -> None:
    """Write the codes of `x [n, d_model]` to `code`, without a Gram matrix."""
    together = max(1, memory // _row_bytes(atoms, code.values.shape[1]))
    for start in range(0, len(x), together):
        part = slice(start, start + together)
        _keep(pursuit(PlainResidual(x[part], atoms)), code, part)


def _pursue_gram(
    x: Tensor,
    atoms: Tensor,
    pursuit: Callable[[Residual], Code],
    code: SparseCode,
    gram: Tensor,
    used: int,
    memory: int,
) -> None:
    """Write the codes of `x [n, d_model]` to `code`; `used` rows of `gram` are read again and again for each row.

    On a CPU a step is many small operations on what is in the cache. Sharing each of them among all cores would
    leave the cores waiting for one another most of the time (one that the system takes away, even for milliseconds);
    so small groups of rows are pursued side by side, each by one thread.
    """
    product = 4 * len(atoms)
    together = max(1, memory // 2 // _row_bytes(atoms, code.values.shape[1]))
    many, workers = max(together, memory // 2 // product), 1
    if x.device.type == "cpu":
        workers = min(torch.get_num_threads(), WORKERS)
        cached = min(CACHE // used, PRODUCTS) // product // workers
        together = min(max(1, together // workers), max(LEAST, cached), -(-len(x) // workers))
        many = min(many, MANY)
    with _Threads(workers if len(x) > together else 1) as threads:
        for first in range(0, len(x), many):
            correlation = F.linear(x[first : first + many], atoms)

            def pursue_group(start: int, first: int = first, correlation: Tensor = correlation) -> None:
                products = correlation[start : start + together]
                part = slice(first + start, first + start + len(products))
                _keep(pursuit(GramResidual(x[part], atoms, gram, products)), code, part)

            threads.each(pursue_group, range(0, len(correlation), together))


def _keep(found: Code, code: SparseCode, part: slice) -> None:
    code.values[part] = found.values.float()
    code.indices[part] = found.support * (code.values[part] != 0)


class _Threads:
    """Threads for tensor work that goes side by side, with the cores of this process divided among them."""

    def __init__(self, count: int):
        self.cores = torch.get_num_threads()
        # modes and the number of cores belong to a thread: a new one starts without
        self.inference = torch.is_inference_mode_enabled()
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(self.cores // count,))
        self.alone = count == 1

    def each(self, work: Callable[[int], None], items: Iterable[int]) -> None:
        """Do `work` on every item, and wait for it; an error of one of them is raised here."""
        if self.alone:
            for item in items:
                work(item)
            return
        for future in [self.pool.submit(self._apart, work, item) for item in items]:
            future.result()

    def _apart(self, work: Callable[[int], None], item: int) -> None:
        with torch.inference_mode(self.inference), torch.no_grad():
            work(item)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        if not self.alone:
            torch.set_num_threads(self.cores)  # what threads to come start with


def _gram_pays(x: Tensor, atoms: Tensor, k: int, method: str, memory: int) -> bool:
    """Whether making a Gram matrix for this call takes less work than a product with all atoms a step."""
    n, (n_atoms, d_model) = len(x), atoms.shape
    used = k if method == "mp" else k * (k + 1) // 2
    with_gram = n_atoms * d_model / 2 + n * (d_model + used * GATHER_COST.get(x.device.type, 25.0))
    return with_gram < n * k * d_model and 4 * n_atoms**2 <= memory // 2


def _check(x: Tensor, atoms: Tensor, k: int, method: str, gram: Tensor | None) -> None:
    if method not in METHODS:
        raise ValueError(f"a method of pursuit is one of {', '.join(METHODS)}; found {method!r}")
    if k < 0:
        raise ValueError(f"k, the number of atoms a row, is at least 0; found {k}")
    if atoms.ndim != 2:
        raise ValueError(f"atoms are [n_atoms, d_model]; found shape {tuple(atoms.shape)}")
    if x.ndim < 1 or x.shape[-1] != atoms.shape[1]:
        raise ValueError(
            f"x must be as wide as the atoms, [..., {atoms.shape[1]}]; found shape {tuple(x.shape)}: "
            "were these atoms made for another model?"
        )
    if not (x.is_floating_point() and atoms.is_floating_point()):
        raise ValueError(f"x and atoms must be floating-point numbers; found {x.dtype} and {atoms.dtype}")
    if gram is not None and (gram.shape != (len(atoms), len(atoms)) or gram.dtype != torch.float32):
        raise ValueError(
            f"gram must be float32 [{len(atoms)}, {len(atoms)}], as gram_of(atoms) gives it; "
            f"found {gram.dtype} {tuple(gram.shape)}"
        )
    for name, other in (("atoms", atoms), ("gram", gram)):
        if other is not None and other.device != x.device:
            raise ValueError(f"{name} must be on the device of x, {x.device}; found {other.device}")


def _check_values(x: Tensor, atoms: Tensor, gram: Tensor | None) -> None:
    bad = ~(x.amax(1).isfinite() & x.amin(1).isfinite()) if x.numel() else x.new_zeros(0, dtype=torch.bool)
    if bool(bad.any()):
        first = int(bad.int().argmax())
        raise ValueError(
            f"x must be finite; found infinity or not-a-number in {int(bad.sum())} of {len(x)} rows, "
            f"first in row {first}"
        )
    length = torch.linalg.vector_norm(atoms, dim=1) if gram is None else gram.diagonal().clamp_min(0).sqrt()
    wrong = ~(((length - 1).abs() <= UNIT) | (length == 0))
    if bool(wrong.any()):
        first = int(wrong.int().argmax())
        raise ValueError(
            f"atoms must have length 1 (or be all zero); found {int(wrong.sum())} of {len(atoms)} that have not, "
            f"first atom {first} of length {float(length[first]):.4g}: divide each by its length"
        )
