import json

import pytest
import torch
import torch.nn.functional as F

from fluxtionary.dictionaries import ITDA, Normalization, load_dictionary, save_dictionary
from fluxtionary.dictionaries.pursuit import gram_of, pursue
from fluxtionary.dictionaries.sparse_code import weighted_sum
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training import itda
from fluxtionary.training.atoms import Atoms
from fluxtionary.training.checkpoint import CheckpointError
from fluxtionary.training.itda import ITDABuild, ITDABuilder, build_itda, compare_itda, reordered

SITE = Site.parse("double.1.img")
TEXT = Site.parse("double.1.txt")


def sparse_tokens(count, d=24, atoms=48, active=3, seed=0, channel=50.0):
    """Sparse positive mixtures of known unit directions, with one channel much larger than the rest."""
    directions = F.normalize(torch.randn(atoms, d, generator=torch.Generator().manual_seed(9)), dim=1)
    generator = torch.Generator().manual_seed(seed)
    which = torch.rand(count, atoms, generator=generator).topk(active).indices
    x = (directions[which] * (0.5 + torch.rand(count, active, 1, generator=generator))).sum(1)
    x[:, 0] *= channel
    sigma = (torch.arange(count) % 4 + 1) / 4
    return Tokens(x, sigma, torch.arange(count) % 64, torch.arange(count) // 64)


class Stream:
    """Tokens in memory as an `ActivationStream` of so many pictures a batch."""

    def __init__(self, tokens, pictures=4, site=SITE):
        self.sites, self.tokens, self.pictures, self.grid = (site,), tokens, pictures, (8, 8)
        count = int(tokens.picture.max()) + 1
        self.prompts = [f"prompt {picture // 2}" for picture in range(count)]
        self.seeds = [1000 + picture for picture in range(count)]
        self.model, self.header = {"family": "flux1", "name": "made up"}, {"steps": 4}
        self.asked = []

    def __len__(self):
        return -(-len(self.prompts) // self.pictures)

    def batches(self, start=0, step=1):
        for number in range(start, len(self), step):
            self.asked.append(number)
            yield {self.sites[0]: self.tokens.rows(self.tokens.picture // self.pictures == number)}


def small(**options):
    defaults = {
        "atoms": 200,
        "k": 3,
        "rule": "paper",
        "threshold": 0.6,
        "tokens": 1500,
        "per_picture": 48,
        "batch": 64,
        "reference": 400,
        "patience": 5000,
    }
    return ITDABuild(**(defaults | options))


@pytest.fixture(scope="module")
def stream():
    return Stream(sparse_tokens(2000))


def builder(x, config):
    """A builder whose normalized space is about the plain one."""
    return ITDABuilder(tokens_of(torch.randn(4000, x.shape[1], generator=torch.Generator().manual_seed(3))), config)


def tokens_of(x):
    return Tokens(x, torch.full((len(x),), 0.5), torch.arange(len(x)) % 64, torch.arange(len(x)) // 64)


def same(a, b):
    assert torch.equal(a.atoms, b.atoms) and torch.equal(a.natural, b.natural)
    assert torch.equal(a.scale.values, b.scale.values)
    assert torch.equal(a.normalization.mean, b.normalization.mean)
    assert torch.equal(a.normalization.std, b.normalization.std)
    assert torch.equal(a.sources.table, b.sources.table) and a.sources.prompts == b.sources.prompts
    without = [{k: v for k, v in d.provenance.training.items() if k != "seconds"} for d in (a, b)]
    assert without[0] == without[1]


# choosing


def test_a_token_three_times_in_a_batch_is_added_once():
    generator = torch.Generator().manual_seed(0)
    different = 3 * torch.randn(10, 24, generator=generator)
    near = different[:1] + 1e-3 * torch.randn(2, 24, generator=generator)
    build = builder(different, small(rule="per_token", threshold=0.05))
    step = build.add(tokens_of(torch.cat([different, near, different[1:2]])))
    assert step.added == 10
    gram = gram_of(build.atoms.rows)
    assert float((gram - torch.eye(10)).abs().max()) < 0.9


def test_what_new_atoms_explain_together_is_not_added():
    """The worst of a batch first: then mixtures of two of its atoms need none of their own."""
    a, b, c = 6 * F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(1)), dim=1)
    batch = tokens_of(torch.stack([(a + b) / 3, (b - a) / 3, c, (a - c) / 3, a, b, b]))
    step = builder(batch.x, small(rule="paper", threshold=0.01, k=2)).add(batch)
    assert step.added == 3


@pytest.mark.parametrize(("rule", "error"), [("paper", "fvu"), ("per_token", "fvu"), ("per_token", "cosine")])
def test_no_token_of_a_batch_is_left_badly_explained(rule, error):
    tokens = sparse_tokens(300)
    config = small(rule=rule, error=error, threshold=0.2, atoms=300, batch=300)
    build = ITDABuilder(tokens, config)
    step = build.add(tokens)
    z = build.normalization.apply(tokens.x)
    code = pursue(z, build.atoms.rows, config.k)
    left = (z - weighted_sum(code, build.atoms.rows)).square().sum(1)
    whole = {
        "paper": (z - z.mean(0)).square().sum(1).mean(),
        "per_token": z.square().sum(1),
    }[rule]
    found = left / whole if error == "fvu" else 1 - F.cosine_similarity(z, weighted_sum(code, build.atoms.rows))
    # a greedy pursuit may do worse with more atoms: seldom
    assert float((found > 0.2).float().mean()) < 0.06
    assert 20 < step.added < 300
    assert step.fvu == pytest.approx(1)  # with no atoms nothing was explained


def test_the_paper_rule_prefers_large_tokens_and_per_token_does_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 24, generator=generator)
    x[:100] *= 0.2
    faint = {}
    for rule in ("paper", "per_token"):
        build = builder(x, small(rule=rule, atoms=200, threshold=0.3))
        build.add(tokens_of(x))
        positions = build.state()[0]["sources.picture"] * 64 + build.state()[0]["sources.position"]
        faint[rule] = float((positions < 100).float().mean())
    assert faint["paper"] < 0.02 and faint["per_token"] > 0.3


def test_no_token_is_taken_that_explains_nothing():
    """The mean itself, of length 0 in normalized space, has no direction."""
    reference = tokens_of(torch.cat([torch.eye(24), -torch.eye(24)]))
    for error in ("fvu", "cosine"):
        build = ITDABuilder(reference, small(rule="per_token", error=error))
        assert build.add(tokens_of(torch.zeros(5, 24))).added == 0


def test_atoms_are_no_more_than_the_cap_and_tokens_no_more_than_asked():
    tokens = sparse_tokens(500)
    build = ITDABuilder(tokens, small(atoms=10, threshold=0.01))
    assert build.add(tokens).added == 10 and build.finished == "atoms"
    build = ITDABuilder(tokens, small(tokens=120, threshold=5.0))
    assert build.add(tokens.rows(slice(0, 100))).tokens == 100 and not build.finished
    assert build.add(tokens.rows(slice(100, 200))).tokens == 20 and build.finished == "tokens"
    assert build.tokens == 120


def test_it_stops_when_hardly_anything_is_added():
    tokens = sparse_tokens(64, atoms=12, active=1)
    build = ITDABuilder(tokens, small(patience=200, least=0.02, tokens=100_000, threshold=0.1))
    looked = []
    while not build.finished:
        looked.append(build.add(tokens).added)
    assert build.finished == "patience" and sum(looked) == looked[0]
    assert len(looked) == 5  # the four batches that have 200 tokens, besides the first, in which all was new


def test_without_centring_the_mean_is_left_in():
    tokens = sparse_tokens(500)
    tokens = tokens._replace(x=tokens.x + 7)
    with_mean = ITDABuilder(tokens, small(centre=False))
    assert bool((with_mean.normalization.mean == 0).all())
    step = with_mean.add(tokens)
    # with no atoms the error is the whole token, so above what lies about the mean
    assert step.fvu > 2
    assert ITDABuilder(tokens, small()).add(tokens).fvu == pytest.approx(1)
    assert bool((with_mean.atoms.rows.mean(0) != 0).any())


# what is kept


def test_the_gram_is_grown_in_place():
    rows = F.normalize(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    atoms = Atoms(300, 16)
    before = atoms._gram.data_ptr()
    for group in rows.split([1, 2, 61, 40, 96, 100]):
        atoms.add(3 * group)
        n, gram = len(atoms), atoms.gram
        assert torch.allclose(atoms.rows, rows[:n], atol=1e-6)
        assert torch.allclose(gram[:n, :n], gram_of(atoms.rows), atol=1e-5)
        assert not gram[n:].any() and not gram[:, n:].any()
        assert gram.is_contiguous() and len(gram) <= max(64, 1.25 * n)
    assert atoms._gram.data_ptr() == before and atoms._gram.numel() == 300 * 300
    with pytest.raises(ValueError, match=r"room for 0 of 300 atoms, found 2 more"):
        atoms.add(rows[:2])


def test_codes_are_those_of_the_atoms_alone():
    rows = torch.randn(70, 16, generator=torch.Generator().manual_seed(0))
    z = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    atoms = Atoms(200, 16)
    code, left = atoms.encode(z, 3, "omp", False)
    assert not code.values.any() and torch.equal(left, z)
    atoms.add(rows)
    code, left = atoms.encode(z, 3, "omp", False)
    expected = pursue(z, atoms.rows, 3)
    assert torch.equal(code.indices, expected.indices) and torch.allclose(code.values, expected.values, atol=1e-5)
    assert torch.allclose(left, z - weighted_sum(expected, atoms.rows), atol=1e-5)


def test_too_many_atoms_for_a_gram_do_without(monkeypatch):
    monkeypatch.setattr("fluxtionary.training.atoms.GRAM", 100)
    tokens = sparse_tokens(300)
    build = ITDABuilder(tokens, small())
    build.add(tokens)
    monkeypatch.undo()
    other = ITDABuilder(tokens, small())
    other.add(tokens)
    assert build.atoms.gram is None and other.atoms.gram is not None
    assert torch.equal(build.atoms.rows, other.atoms.rows)


def test_every_atom_is_the_token_that_its_source_names(stream):
    dictionary = build_itda(stream, SITE, small())
    z = F.normalize(dictionary.normalization.apply(stream.tokens.x), dim=1)
    assert len(dictionary.sources.table) == dictionary.n_features > 50
    assert dictionary.sources.columns == ("prompt", "seed", "sigma", "row", "column")
    for atom in range(dictionary.n_features):
        source = dictionary.sources.of(atom)
        picture = stream.seeds.index(int(source["seed"]))
        assert source["prompt"] == stream.prompts[picture]
        token = picture * 64 + int(source["row"]) * 8 + int(source["column"])
        assert source["sigma"] == float(stream.tokens.sigma[token])
        assert torch.allclose(dictionary.atoms[atom], z[token], atol=1e-6)
    assert len(set(dictionary.sources.prompts)) == len(dictionary.sources.prompts) <= len(set(stream.prompts))
    used = {dictionary.sources.of(atom)["prompt"] for atom in range(dictionary.n_features)}
    assert used == set(dictionary.sources.prompts)


def test_a_text_token_has_its_place_in_the_prompt():
    texts = Stream(sparse_tokens(640), site=TEXT)
    dictionary = build_itda(texts, TEXT, small())
    row, column = dictionary.sources.table[:, 3], dictionary.sources.table[:, 4]
    assert bool((row == 0).all()) and column.max() > 8


# what it comes to


def test_it_learns_sparse_structure_better_than_drawn_tokens():
    stream, held_out = Stream(sparse_tokens(6000, active=2)), sparse_tokens(1000, seed=1, active=2)
    config = small(atoms=96, rule="per_token", threshold=0.12, k=4, tokens=6000, per_picture=None, batch=256)
    dictionary = build_itda(stream, SITE, config)
    z = Normalization.fit(stream.tokens.x).apply(held_out.x)
    fvus = []
    for seed in range(5):
        drawn = torch.randperm(6000, generator=torch.Generator().manual_seed(seed))[:96]
        unit = F.normalize(Normalization.fit(stream.tokens.x).apply(stream.tokens.x[drawn]), dim=1)
        fvus.append(float((z - weighted_sum(pursue(z, unit, 4), unit)).square().sum() / z.square().sum()))
    left = (held_out.x - dictionary.reconstruct(held_out.x)) / Normalization.fit(stream.tokens.x).std
    assert float(left.square().sum() / z.square().sum()) < min(fvus)


def test_the_dictionary_carries_how_it_was_made(stream, tmp_path):
    config = small(atoms=50, method="gp", nonnegative=True)
    dictionary = build_itda(stream, SITE, config)
    assert (dictionary.site, dictionary.k, dictionary.method, dictionary.nonnegative) == ("double.1.img", 3, "gp", True)
    training = dictionary.provenance.training
    assert {name: training[name] for name in ("atoms", "threshold", "rule")} == {
        "atoms": 50,
        "threshold": config.threshold,
        "rule": config.rule,
    }
    assert training["stopped"] == "atoms" and training["added"] == 50 and 50 <= training["looked_at"] < 1500
    assert dictionary.provenance.capture == {"steps": 4, "n_tokens": training["looked_at"]}
    assert dictionary.model == stream.model
    save_dictionary(dictionary, tmp_path / "itda.safetensors")
    loaded = load_dictionary(tmp_path / "itda.safetensors")
    assert isinstance(loaded, ITDA)
    same(loaded, dictionary)
    assert compare_itda(loaded, dictionary)["jaccard"] == 1


def test_natural_values_are_in_units_of_strength(stream):
    dictionary = build_itda(stream, SITE, small(reference=2000, per_picture=None))
    code = dictionary.encode(stream.tokens.x)
    feature = int(torch.bincount(code.indices[code.values != 0]).argmax())
    value = code.coefficient(feature)
    size = torch.tensor([dictionary.scale.at(float(sigma)) for sigma in stream.tokens.sigma])
    active = value != 0
    expected = (value / size)[active].mean() * dictionary.direction(feature).norm()
    assert float(dictionary.natural[feature]) == pytest.approx(float(expected), rel=0.01)


def test_tokens_of_all_pictures_are_looked_at_by_seed(stream):
    first, again = build_itda(stream, SITE, small()), build_itda(stream, SITE, small())
    same(first, again)
    other = build_itda(stream, SITE, small(seed=1))
    assert compare_itda(first, other)["jaccard"] < 0.9
    config = small(per_picture=5, threshold=0.01, atoms=60)
    few = build_itda(stream, SITE, config)
    assert few.provenance.training["stopped"] == "atoms"
    assert int(torch.bincount(few.sources.table[:, 1].long() - 1000).max()) <= 5


# going on


@pytest.mark.parametrize("after", [2, 4])
def test_a_run_killed_anywhere_goes_on_to_the_same_dictionary(stream, tmp_path, monkeypatch, after):
    whole = build_itda(stream, SITE, small(), log=tmp_path / "whole.jsonl")
    path, log = tmp_path / "run", tmp_path / "log.jsonl"
    add = ITDABuilder.add
    calls = []

    def killed(self, *arguments):
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("killed")
        return add(self, *arguments)

    monkeypatch.setattr(ITDABuilder, "add", killed)
    with pytest.raises(RuntimeError, match="killed"):
        build_itda(stream, SITE, small(), path, every_seconds=0, log=log)
    monkeypatch.undo()
    with log.open("a") as file:  # written after the checkpoint, and cut off in the middle
        file.write(json.dumps({"tokens": 10**6, "atoms": 0, "fvu": 0, "added": 0}) + '\n{"tok')
    stream.asked.clear()
    same(build_itda(stream, SITE, small(), path, resume=True, log=log), whole)
    assert stream.asked[0] == after * 64 // (4 * 48)
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in (log, tmp_path / "whole.jsonl")]
    for line in (*lines[0], *lines[1]):
        line.pop("seconds")
    assert lines[0] == lines[1]


@pytest.mark.parametrize("after", [2, 12])
def test_an_interruption_in_the_middle_of_a_batch_loses_nothing(stream, tmp_path, monkeypatch, after):
    whole = build_itda(stream, SITE, small())
    add = Atoms.add
    calls = []

    def interrupted(self, rows):
        add(self, rows)
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Atoms, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"`--resume` goes on from .*run"):
        build_itda(stream, SITE, small(), tmp_path / "run")
    monkeypatch.undo()
    same(build_itda(stream, SITE, small(), tmp_path / "run", resume=True), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interruption_without_a_checkpoint_says_so(stream, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ITDABuilder, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match="nothing is kept"):
        build_itda(stream, SITE, small())


def test_a_finished_run_resumed_is_the_same(stream, tmp_path):
    first = build_itda(stream, SITE, small(), tmp_path / "run")
    again = build_itda(stream, SITE, small(), tmp_path / "run", resume=True)
    same(first, again)
    assert again.provenance.training["seconds"] >= first.provenance.training["seconds"]


def test_a_checkpoint_of_another_run_is_refused(stream, tmp_path):
    path = tmp_path / "run"
    build_itda(stream, SITE, small(), path)
    with pytest.raises(CheckpointError, match=r"config.*threshold = 0.6, this one 0.4"):
        build_itda(stream, SITE, small(threshold=0.4), path, resume=True)
    other = Stream(sparse_tokens(2000))
    other.header = {"steps": 5}
    with pytest.raises(CheckpointError, match=r"stream.*header = "):
        build_itda(other, SITE, small(), path, resume=True)
    other = Stream(sparse_tokens(2000))
    other.seeds = [7, *other.seeds[1:]]
    with pytest.raises(CheckpointError, match=r"stream.*seeds = "):
        build_itda(other, SITE, small(), path, resume=True)
    with pytest.raises(CheckpointError, match=r"header"):
        build_itda(reordered(stream, 1), SITE, small(), path, resume=True)


def test_the_log_shows_fvu_falling_as_atoms_come(stream, tmp_path):
    log = tmp_path / "folder" / "log.jsonl"
    dictionary = build_itda(stream, SITE, small(atoms=150, threshold=0.1), log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["atoms"] for line in lines] == torch.tensor([line["added"] for line in lines]).cumsum(0).tolist()
    assert lines[-1]["atoms"] == dictionary.n_features
    assert lines[-1]["tokens"] == dictionary.provenance.training["looked_at"]
    assert lines[0]["fvu"] == pytest.approx(1, abs=0.2) and lines[-1]["fvu"] < 0.5
    build_itda(stream, SITE, small(atoms=60), log=log)
    assert json.loads(log.read_text().splitlines()[-1])["atoms"] == 60  # a new run, a new log


# comparing


def test_comparing_goes_by_where_atoms_came_from(stream):
    whole = build_itda(stream, SITE, small())
    n = whole.n_features
    assert compare_itda(whole, whole) == {"jaccard": 1.0, "intersection": n, "size_a": n, "size_b": n}
    second = build_itda(reordered(stream, 5), SITE, small())
    ceiling = compare_itda(whole, second)
    other = Stream(sparse_tokens(2000))
    other.prompts = [f"another {prompt}" for prompt in other.prompts]
    assert 0 < ceiling["jaccard"] < 1
    assert compare_itda(whole, build_itda(other, SITE, small()))["jaccard"] == 0
    bare = ITDA("double.1.img", whole.atoms, 3)
    with pytest.raises(ValueError, match=r"found none in the second dictionary"):
        compare_itda(whole, bare)


def test_a_reordered_stream_has_the_same_batches_in_another_order(stream):
    mixed = reordered(stream, 3)
    firsts = [int(batch[SITE].picture[0]) for batch in mixed.batches()]
    assert firsts != sorted(firsts) and sorted(firsts) == list(range(0, 32, 4))
    assert [int(batch[SITE].picture[0]) for batch in mixed.batches(2, 3)] == firsts[2::3]
    stream.asked.clear()
    next(iter(mixed.batches(1)))
    assert len(stream.asked) == 1
    assert len(mixed) == len(stream) and mixed.prompts == stream.prompts


def test_which_tokens_of_a_picture_are_looked_at_does_not_depend_on_the_order(stream):
    def looked_at(of):
        tokens = Tokens.joined([tokens for _, tokens in itda._pool(of, SITE, small(per_picture=7))])
        return set(zip(tokens.picture.tolist(), tokens.position.tolist(), strict=True))

    assert looked_at(stream) == looked_at(reordered(stream, 3))


# what cannot work


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atoms": 0}, "atoms must be at least 1"),
        ({"k": 201}, "k = 201"),
        ({"tokens": 0}, "tokens must"),
        ({"batch": -1}, "batch must"),
        ({"per_picture": 0}, "per_picture must"),
        ({"rule": "newest"}, "rule is one of paper, per_token; found 'newest'"),
        ({"rule": "per_token", "error": "l1"}, "error is one of fvu, cosine"),
        ({"rule": "paper", "error": "cosine"}, "paper's rule"),
        ({"method": "lasso"}, "method is one of"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": float("nan")}, "threshold must be above 0"),
        ({"least": 2.0}, "least is a share"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_streams_that_cannot_work_are_refused(stream):
    with pytest.raises(ValueError, match=r"tokens of double.1.img; found double.1.txt"):
        build_itda(stream, TEXT, small())
    empty = Stream(sparse_tokens(64))
    empty.tokens = empty.tokens.rows(slice(0, 0))
    with pytest.raises(ValueError, match=r"no tokens of double.1.img"):
        build_itda(empty, SITE, small())
    with pytest.raises(ValueError, match=r"above the threshold of 900.*lower"):
        build_itda(stream, SITE, small(threshold=900.0))
    broken = Stream(replace_x(stream.tokens, float("nan")))
    with pytest.raises(ValueError, match="finite"):
        build_itda(broken, SITE, small(reference=10, per_picture=None))


def replace_x(tokens, value):
    x = tokens.x.clone()
    x[1000:, 3] = value
    return tokens._replace(x=x)
