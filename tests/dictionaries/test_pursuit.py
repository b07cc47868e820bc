import importlib.util
import itertools
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import orthogonal_mp_gram

from fluxtionary.dictionaries import pursuit
from fluxtionary.dictionaries.pursuit import METHODS, gram_of, pursue
from fluxtionary.dictionaries.pursuit_methods import _first_two


@pytest.fixture(autouse=True)
def threads():
    """One thread, so that small tensors take no longer on a busy machine; a test may ask for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


VARIANTS = [("mp", False), ("mp", True), ("gp", False), ("gp", True), ("gp_paper", True), ("omp", False), ("omp", True)]
"""Every method, signed and non-negative."""


# ---- the pursuits row by row in float64, as their papers state them


def matching(x, atoms, k, nonnegative=False):
    """Mallat and Zhang 1993."""
    residual, code = x.copy(), np.zeros(len(atoms))
    for _ in range(k):
        products = atoms @ residual
        best = np.argmax(products if nonnegative else np.abs(products))
        if nonnegative and products[best] <= 0:
            break
        code[best] += products[best]
        residual -= products[best] * atoms[best]
    return code


def gradient(x, atoms, k, nonnegative=False):
    """Blumensath and Davies 2008; non-negative: clipped, and cut back by trying lengths between 0 and 1."""
    code, support = np.zeros(len(atoms)), np.zeros(len(atoms), bool)
    for _ in range(k):
        residual = x - code @ atoms
        products = atoms @ residual
        others = np.where(support, 0, products)
        best = np.argmax(others if nonnegative else np.abs(others))
        if abs(others[best]) > 1e-12 and not (nonnegative and others[best] <= 0):
            support[best] = True
        direction = products * support
        if nonnegative:
            direction[(code <= 0) & (direction < 0)] = 0
        image = direction @ atoms
        if not image @ image > 0:
            break
        change = (image @ residual) / (image @ image) * direction
        if nonnegative:
            change = np.maximum(code + change, 0) - code
            image = change @ atoms
            if image @ image > 0:
                change = change * np.clip((image @ residual) / (image @ image), 0, 1)
        code = code + change
    return code


def paper_gradient(x, atoms, k):
    """The code of arXiv 2505.24360: signed argmax, best length on the support, clipped."""
    code = np.zeros(len(atoms))
    for _ in range(k):
        residual = x - code @ atoms
        products = atoms @ residual
        support = code != 0
        support[np.argmax(products)] = True
        direction = products * support
        image = direction @ atoms
        code = np.maximum(code + image @ residual / max(image @ image, 1e-3) * direction, 0)
    return code


def orthogonal(x, atoms, k, nonnegative=False):
    """Pati, Rezaiifar and Krishnaprasad 1993; non-negative: with the inner loop of Lawson and Hanson 1974."""
    code, used = np.zeros(len(atoms)), []
    for _ in range(k):
        products = atoms @ (x - code @ atoms)
        best = np.argmax(products if nonnegative else np.abs(products))
        if best in used or (nonnegative and products[best] <= 0) or abs(products[best]) < 1e-9:
            break
        used = [*used, best]
        while True:
            wanted = np.zeros(len(atoms))
            wanted[used] = np.linalg.lstsq(atoms[used].T, x, rcond=None)[0]
            short = [i for i in used if wanted[i] <= 0]
            if not nonnegative or not short:
                break
            reach = min(code[i] / (code[i] - wanted[i]) for i in short)
            left = min(short, key=lambda i: code[i] / (code[i] - wanted[i]))
            code = code + reach * (wanted - code)
            code[left] = 0
            used = [i for i in used if i != left]
        code = wanted
    return code


LITERAL = {"mp": matching, "gp": gradient, "gp_paper": paper_gradient, "omp": orthogonal}


def literally(x, atoms, k, method, nonnegative):
    x, atoms = x.double().numpy(), atoms.double().numpy()
    options = {} if method == "gp_paper" else {"nonnegative": nonnegative}
    return torch.from_numpy(np.stack([LITERAL[method](row, atoms, k, **options) for row in x]))


# ---- problems


def mixtures(n, d, directions, generator, large=50.0):
    """Sparse mixtures of unit directions with noise, two channels `large` times larger."""
    chosen = torch.randint(len(directions), (n, 8), generator=generator)
    weights = 0.5 + torch.rand(n, 8, generator=generator)
    x = torch.einsum("nk,nkd->nd", weights, directions[chosen])
    x = x + 0.1 * x.std() * torch.randn(n, d, generator=generator)
    x[:, [3, d // 2]] *= large
    return x


def problem(n=60, d=24, n_atoms=60, kind="random", seed=0):
    """`x [n, d]` and unit atoms `[n_atoms, d]`; of kind `scaled` both are badly scaled data points,
    of kind `coherent` they point much the same way."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "random":
        x, atoms = torch.randn(n, d, generator=generator), torch.randn(n_atoms, d, generator=generator)
    elif kind == "coherent":
        center = torch.randn(d, generator=generator)
        atoms = center + torch.randn(n_atoms, d, generator=generator)
        x = 2 * center + torch.randn(n, d, generator=generator)
    else:
        directions = F.normalize(torch.randn(2 * d, d, generator=generator), dim=1)
        x, atoms = (mixtures(size, d, directions, generator) for size in (n, n_atoms))
    return x, F.normalize(atoms, dim=1)


def run(x, atoms, k, method="omp", nonnegative=False, route="gram"):
    """`pursue` with a Gram matrix or without."""
    if route == "gram":
        return pursue(x, atoms, k, method, nonnegative=nonnegative, gram=gram_of(atoms))
    with mock.patch.object(pursuit, "_gram_pays", return_value=False):
        return pursue(x, atoms, k, method, nonnegative=nonnegative)


def left(x, code, atoms):
    """Length of the residual, in float64."""
    return (x.double() - code.dense(len(atoms)).double() @ atoms.double()).norm(dim=1)


def active_indices_are_distinct(code):
    shown = torch.where(code.values != 0, code.indices, -1 - torch.arange(code.values.shape[-1]))
    ordered = shown.sort(-1).values
    return bool((ordered[..., 1:] != ordered[..., :-1]).all())


# ---- agreement


@pytest.mark.parametrize(
    ("kind", "d", "n_atoms", "k"),
    [("random", 64, 256, 8), ("random", 128, 300, 24), ("scaled", 64, 256, 24), ("scaled", 128, 512, 12)],
)
def test_omp_agrees_with_scikit_learn(kind, d, n_atoms, k):
    x, atoms = problem(1000, d, n_atoms, kind)
    exact, wide = atoms.double().numpy(), x.double().numpy()
    expected = torch.from_numpy(orthogonal_mp_gram(exact @ exact.T, exact @ wide.T, n_nonzero_coefs=k).T.copy())
    for route in ("gram", "plain"):
        found = run(x, atoms, k, route=route).dense(n_atoms).double()
        same = ((found != 0) == (expected != 0)).all(1)
        assert same.double().mean() >= 0.999, route
        assert (found - expected)[same].abs().max() <= 1e-4, route


@pytest.mark.parametrize("route", ["gram", "plain"])
@pytest.mark.parametrize("kind", ["random", "scaled"])
@pytest.mark.parametrize(("method", "nonnegative"), VARIANTS)
def test_every_pursuit_agrees_with_its_paper_row_by_row(method, nonnegative, kind, route):
    x, atoms = problem(kind=kind)
    for k in (1, 2, 10):
        code = run(x, atoms, k, method, nonnegative, route)
        found, expected = code.dense(60).double(), literally(x, atoms, k, method, nonnegative)
        close = (found - expected).norm(dim=1) <= 1e-4 * expected.norm(dim=1).clamp_min(1.0)
        assert close.double().mean() >= 0.98, k
        assert active_indices_are_distinct(code)


def released():
    path = Path(__file__).parents[2] / "benchmarks" / "released_pursuit.py"
    spec = importlib.util.spec_from_file_location("released_pursuit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("route", ["gram", "plain"])
@pytest.mark.parametrize("size", [1.0, 0.01], ids=["plain", "small: its floor acts"])
def test_the_paper_s_gradient_pursuit_is_reproduced(size, route):
    x, atoms = problem(300, 48, 160)
    x = size * x
    expected = released().released_gradient_pursuit(x, atoms, 16)
    found = run(x, atoms, 16, "gp_paper", route=route).dense(160)
    assert (found - expected).abs().max() <= 1e-5 * max(size, 0.1)
    assert (expected != 0).sum(1).double().mean() < 16  # it chooses some atoms twice, and loses some


def test_released_matching_pursuit_is_our_signed_one():
    x, atoms = problem(300, 48, 160)
    expected = released().released_matching_pursuit(x, atoms, 16)
    assert (run(x, atoms, 16, "mp").dense(160) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("nonnegative", [False, True])
def test_sparse_mixtures_are_found(nonnegative):
    _, atoms = problem(d=64, n_atoms=100)
    x = torch.stack([2.0 * atoms[3] - 1.0 * atoms[5], 0.5 * atoms[9] + 3.0 * atoms[40]])
    code = run(x, atoms, 6, nonnegative=nonnegative)
    assert code.values[1].sort(descending=True).values.tolist() == pytest.approx([3, 0.5, 0, 0, 0, 0], abs=1e-5)
    assert code.coefficient(3)[0] == pytest.approx(2.0, abs=1e-5) if not nonnegative else code.coefficient(5)[0] == 0


# ---- what each promises


@pytest.mark.parametrize("route", ["gram", "plain"])
@pytest.mark.parametrize("kind", ["random", "scaled"])
@pytest.mark.parametrize(("method", "nonnegative"), [v for v in VARIANTS if v[0] != "gp_paper"])
def test_the_residual_never_grows(method, nonnegative, kind, route):
    x, atoms = problem(n=200, kind=kind)
    lengths = [left(x, run(x, atoms, k, method, nonnegative, route), atoms) for k in range(17)]
    for before, after in itertools.pairwise(lengths):
        assert (after <= before + 1e-6 * lengths[0]).all()
    assert (lengths[-1] < 0.9 * lengths[0]).double().mean() > 0.9


def grows(method, nonnegative):
    """How many steps on the 500 rows of a coherent problem make a residual longer."""
    x, atoms = problem(500, 3, 6, "coherent", seed=12)
    lengths = [left(x, run(x, atoms, k, method, nonnegative), atoms) for k in range(7)]
    return sum((after > before + 1e-6 * lengths[0]).int() for before, after in itertools.pairwise(lengths)).sum()


def test_the_paper_s_variant_may_let_the_residual_grow_where_ours_backtracks():
    assert grows("gp_paper", True) > 10
    assert grows("gp", True) == grows("gp", False) == grows("omp", True) == grows("omp", False) == 0


@pytest.mark.parametrize("route", ["gram", "plain"])
@pytest.mark.parametrize(("method", "nonnegative"), VARIANTS)
def test_non_negative_means_non_negative(method, nonnegative, route):
    x, atoms = problem(n=200)
    code = run(x, atoms, 12, method, nonnegative, route)
    assert bool((code.values >= 0).all()) is nonnegative
    assert (code.l0() <= 12).all() and code.l0().double().mean() > 6
    against = run(-atoms.sum(0, keepdim=True), torch.eye(24)[:4].abs(), 4, method, nonnegative, route)
    assert against.values.shape == (1, 4)


def test_non_negative_omp_fits_what_it_keeps():
    x, atoms = problem(n=100, kind="scaled")
    code = run(x, atoms, 16, nonnegative=True)
    assert (code.l0() < 16).any()  # some atoms left
    residual = x.double() - code.dense(60).double() @ atoms.double()
    products = (residual @ atoms.double().T).gather(1, code.indices) * (code.values > 0)
    assert products.abs().max() <= 1e-5 * x.norm(dim=1).max()


def test_omp_explains_most_and_pursuits_use_what_they_are_given():
    x, atoms = problem(n=300, d=48, n_atoms=160, kind="scaled")
    lengths = {method: left(x, run(x, atoms, 12, method), atoms).square().sum() for method in METHODS}
    assert lengths["omp"] < lengths["gp"] < lengths["mp"] and lengths["gp"] < lengths["gp_paper"]
    assert (run(x, atoms, 12).l0() == 12).all()


# ---- edges


@pytest.mark.parametrize("route", ["gram", "plain"])
@pytest.mark.parametrize(("method", "nonnegative"), VARIANTS)
class TestEdges:
    def test_no_atoms_asked_for_and_no_rows(self, method, nonnegative, route):
        x, atoms = problem()
        assert run(x, atoms, 0, method, nonnegative, route).values.shape == (60, 0)
        assert run(x, atoms[:0], 5, method, nonnegative, route).indices.shape == (60, 0)
        assert run(x[:0], atoms, 5, method, nonnegative, route).values.shape == (0, 5)
        assert run(x[None, :0], atoms, 5, method, nonnegative, route).values.shape == (1, 0, 5)

    def test_more_atoms_asked_for_than_there_are(self, method, nonnegative, route):
        x, atoms = problem(n_atoms=4)
        assert run(x, atoms, 9, method, nonnegative, route).values.shape == (60, 4)
        one = run(x, atoms[:1], 3, method, nonnegative, route)
        product = (x @ atoms[0]).relu() if nonnegative else x @ atoms[0]
        above = product.abs() > (0.1 if method == "gp_paper" else 0)  # where its floor does not act
        assert torch.allclose(one.values[above, 0], product[above], atol=1e-5)

    def test_zero_rows_are_padding(self, method, nonnegative, route):
        x, atoms = problem()
        x[[0, 7]] = 0
        code = run(x, atoms, 5, method, nonnegative, route)
        assert not code.values[[0, 7]].any() and not code.indices[[0, 7]].any()
        assert (code.l0()[1:7] > 0).all()

    def test_duplicate_and_zero_atoms(self, method, nonnegative, route):
        x, atoms = problem(n_atoms=20)
        twice = torch.cat([atoms, atoms, torch.zeros(3, 24)])
        code = run(x, twice, 12, method, nonnegative, route)
        assert (code.indices < 40).all()
        merged = code._replace(indices=code.indices % 20)
        if method == "omp":
            assert active_indices_are_distinct(merged)  # never an atom and its double
        once = run(x, atoms, 12, method, nonnegative, route)
        if method == "gp":  # it may take a double, which explains nothing more
            half = run(x, atoms, 6, method, nonnegative, route)
            assert (left(x, code, twice) <= left(x, half, atoms) + 1e-3).double().mean() > 0.9
        else:
            assert torch.allclose(left(x, once, atoms), left(x, code, twice), atol=1e-3)

    def test_a_rank_deficient_dictionary(self, method, nonnegative, route):
        x, atoms = problem()
        flat = F.normalize(torch.cat([atoms[:, :3], torch.zeros(60, 21)], 1), dim=1)
        code = run(x, flat, 10, method, nonnegative, route)
        assert code.values.isfinite().all() and code.values.abs().max() < 100
        assert (left(x, code, flat) <= x.double().norm(dim=1) + 1e-5).all()
        if method == "omp" and not nonnegative:
            assert (code.l0() == 3).all()
            assert torch.allclose(left(x, code, flat), x[:, 3:].double().norm(dim=1), atol=1e-5)

    def test_sizes_do_not_matter(self, method, nonnegative, route):
        if method == "gp_paper":
            return  # its floor has a size
        x, atoms = problem()
        code = run(x, atoms, 8, method, nonnegative, route)
        for size in (2.0**-40, 2.0**40):
            other = run(size * x, atoms, 8, method, nonnegative, route)
            assert torch.equal(other.indices, code.indices)
            assert torch.allclose(other.values / size, code.values, rtol=1e-5)

    def test_shapes_are_kept(self, method, nonnegative, route):
        x, atoms = problem()
        flat = run(x, atoms, 5, method, nonnegative, route)
        code = run(x.reshape(3, 4, 5, 24), atoms, 5, method, nonnegative, route)
        assert code.values.shape == code.indices.shape == (3, 4, 5, 5)
        assert code.values.dtype == torch.float32 and code.indices.dtype == torch.int64
        assert torch.allclose(code.values.reshape(60, 5), flat.values, atol=1e-6)
        single = run(x[4], atoms, 5, method, nonnegative, route)
        assert torch.equal(single.indices, flat.indices[4])
        strided = run(x.T.contiguous().T, atoms.T.contiguous().T, 5, method, nonnegative, route)
        assert torch.equal(strided.indices, flat.indices)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_other_float_types_are_taken_in_float32(self, method, nonnegative, route, dtype):
        x, atoms = problem()
        x, atoms = x.to(dtype), atoms.to(dtype)
        code = run(x, atoms, 5, method, nonnegative, route)
        same = run(x.float(), atoms.float(), 5, method, nonnegative, route)
        assert torch.equal(code.values, same.values) and torch.equal(code.indices, same.indices)

    def test_it_is_the_same_under_autocast_and_inference_mode_and_keeps_no_graph(self, method, nonnegative, route):
        x, atoms = problem(d=96)
        plain = run(x, atoms, 5, method, nonnegative, route)
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            inside = run(x, atoms, 5, method, nonnegative, route)
        assert torch.equal(plain.values, inside.values) and torch.equal(plain.indices, inside.indices)
        assert not run(x.requires_grad_(), atoms, 5, method, nonnegative, route).values.requires_grad

    def test_inputs_are_left_alone(self, method, nonnegative, route):
        x, atoms = problem()
        gram = gram_of(atoms)
        before = [tensor.clone() for tensor in (x, atoms, gram)]
        pursue(x, atoms, 6, method, nonnegative=nonnegative, gram=gram if route == "gram" else None)
        assert all(torch.equal(*pair) for pair in zip((x, atoms, gram), before, strict=True))


def test_of_equal_atoms_the_first_is_chosen_and_near_ties_are_settled_in_float64():
    generator = torch.Generator().manual_seed(3)
    atom = F.normalize(torch.randn(64, generator=generator), dim=0)
    x = 30 * atom[None] + 0.01 * torch.randn(200, 64, generator=generator)
    near = F.normalize(atom + 1e-6 * torch.randn(7, 64, generator=generator), dim=1)
    best = (near.double() @ x.double().T).argmax(0)
    for route in ("gram", "plain"):
        assert torch.equal(run(x, near, 1, route=route).indices[:, 0], best)
    assert (run(x, torch.cat([near[:1]] * 5), 1).indices == 0).all()


# ---- memory and routes


def most_held(call):
    """What `call` returns, and the most bytes that it held at once, by the allocator's own account."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        result = call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return result, max(held)


@pytest.mark.parametrize(("method", "nonnegative"), VARIANTS)
def test_it_works_in_the_memory_it_is_given(method, nonnegative):
    x, atoms = problem(600, 96, 700, "scaled")
    gram, result = gram_of(atoms), 600 * 12 * 12
    whole = pursue(x, atoms, 12, method, nonnegative=nonnegative, gram=gram)
    for memory in (2**19, 2**21, 2**23):
        for given in (gram, None):

            def call(memory=memory, given=given):
                return pursue(x, atoms, 12, method, nonnegative=nonnegative, gram=given, memory=memory)

            found, most = most_held(call)
            assert most <= memory + result + 2**17
            assert (found.indices == whole.indices).all(1).double().mean() > 0.99


def test_a_gram_is_made_where_it_pays_and_fits(monkeypatch):
    made = []
    monkeypatch.setattr(pursuit, "gram_of", lambda atoms: made.append(len(atoms)) or gram_of(atoms))
    x, atoms = problem(2000, 64, 200)
    pursue(x, atoms, 8)
    assert made == [200]
    pursue(x[:3], atoms, 8)  # too few rows
    pursue(x, atoms, 1)  # one product with all atoms is all it takes
    pursue(x, atoms, 8, memory=7 * 200**2)  # it would take more than half
    pursue(x, atoms, 8, gram=gram_of(atoms))  # there is one
    assert made == [200]


def test_threads_change_nothing(threads):
    x, atoms = problem(500, 64, 300, "scaled")
    alone = pursue(x, atoms, 16, gram=gram_of(atoms))
    threads(2)
    several = pursue(x, atoms, 16, gram=gram_of(atoms))
    with torch.inference_mode():
        inside = pursue(x, atoms, 16, gram=gram_of(atoms))
    assert torch.get_num_threads() == 2
    for other in (several, inside):
        assert torch.equal(alone.indices, other.indices) and torch.allclose(alone.values, other.values, atol=1e-4)


def test_an_error_in_a_thread_is_raised(monkeypatch, threads):
    threads(2)

    def fail(residual, k, nonnegative):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(pursuit._METHODS, "omp", fail)
    x, atoms = problem(500)
    with pytest.raises(RuntimeError, match="no such luck"):
        run(x, atoms, 3)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gram_is_every_product(dtype, monkeypatch):
    _, atoms = problem()
    atoms = atoms.to(dtype)
    exact = atoms.double() @ atoms.double().T
    for block in (7, 60, 2048):
        monkeypatch.setattr(pursuit, "BLOCK", block)
        gram = gram_of(atoms)
        assert gram.dtype == torch.float32 and (gram - exact).abs().max() <= 1e-6
    assert gram_of(atoms[:0]).shape == (0, 0)


def test_long_rows_are_searched_block_by_block():
    generator = torch.Generator().manual_seed(0)
    for n_atoms in (4096, 4159, 5000):
        size = torch.rand(300, n_atoms, generator=generator)
        size[torch.arange(64), -1 - torch.arange(64)] = 2.0  # also among the last, which fill no block
        where, first, second = _first_two(size)
        best = size.topk(2, dim=1)
        assert torch.equal(where, best.indices[:, 0])
        assert torch.equal(first, best.values[:, 0]) and torch.equal(second, best.values[:, 1])


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "lasso"}, "one of mp, gp, gp_paper, omp; found 'lasso'"),
        ({"k": -1}, "at least 0; found -1"),
        ({"x": torch.zeros(2, 23)}, r"\[..., 24\]; found shape \(2, 23\)"),
        ({"x": torch.tensor(1.0)}, r"found shape \(\)"),
        ({"x": torch.zeros(2, 24, dtype=torch.long)}, "found torch.int64"),
        ({"atoms": torch.zeros(24)}, r"\[n_atoms, d_model\]; found shape \(24,\)"),
        ({"atoms": 2 * torch.eye(24)}, "24 of 24 that have not, first atom 0 of length 2:"),
        ({"atoms": torch.full((3, 24), torch.nan)}, "first atom 0 of length nan"),
        ({"gram": torch.zeros(3, 3)}, r"float32 \[60, 60\].*found torch.float32 \(3, 3\)"),
        ({"gram": torch.eye(60).double()}, r"found torch.float64 \(60, 60\)"),
        ({"gram": 4 * torch.eye(60)}, "first atom 0 of length 2:"),
        ({"gram": torch.eye(60, device="meta")}, "gram must be on the device of x, cpu; found meta"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    x, atoms = problem()
    with pytest.raises(ValueError, match=message):
        pursue(**({"x": x, "atoms": atoms, "k": 3} | change))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_refused(bad):
    x, atoms = problem()
    x[[7, 30], 5] = bad
    with pytest.raises(ValueError, match="in 2 of 60 rows, first in row 7"):
        pursue(x, atoms, 3)


def test_atoms_stored_in_half_precision_pass_for_unit_ones():
    x, atoms = problem(kind="scaled")
    for dtype in (torch.bfloat16, torch.float16):
        assert (pursue(x, atoms.to(dtype), 4).l0() == 4).all()
