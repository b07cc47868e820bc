import pytest
import torch

from fluxtionary.dictionaries import Normalization
from fluxtionary.dictionaries.metrics import CellMeans, measure_dictionary
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.buffer import ShuffleBuffer
from fluxtionary.training.capture import collect
from fluxtionary.training.sae import SAETraining, Trainer, train_sae

SITE = Site.parse("double.1.img")


def sparse_tokens(count, d=24, atoms=48, active=3, seed=0, channel=50.0):
    """Sparse positive mixtures of known unit directions, with one channel much larger than the rest."""
    directions = torch.nn.functional.normalize(torch.randn(atoms, d, generator=torch.Generator().manual_seed(9)), dim=1)
    generator = torch.Generator().manual_seed(seed)
    which = torch.rand(count, atoms, generator=generator).topk(active).indices
    x = (directions[which] * (0.5 + torch.rand(count, active, 1, generator=generator))).sum(1)
    x[:, 0] *= channel
    return Tokens(x, torch.full((count,), 0.5), torch.arange(count) % 64, torch.arange(count) // 64)


def stream(tokens, size=500):
    for start in range(0, len(tokens.x), size):
        yield Tokens(*(column[start : start + size] for column in tokens))


def small(**options):
    defaults = {
        "features": 64,
        "k": 4,
        "tokens": 200_000,
        "batch": 256,
        "learning_rate": 3e-3,
        "buffer": 10_000,
        "dead_after": 5_000,
    }
    return SAETraining(**(defaults | options))


def trained(config=None):
    config = config or small()
    buffer = ShuffleBuffer(stream(sparse_tokens(40_000)), config.buffer, config.reuse, config.seed)
    return train_sae(buffer, SITE, config, {"family": "flux1"}, {"steps": 1}), buffer


def test_it_learns_sparse_structure_that_pca_cannot():
    from fluxtionary.evaluation.baselines import pca_fvu

    dictionary, _ = trained()
    held_out, train = sparse_tokens(4000, seed=1), sparse_tokens(20_000)
    normalization = Normalization.fit(train.x)
    cells = CellMeans(train.x, train.sigma, train.position)
    found = measure_dictionary(dictionary, normalization, cells, held_out.x, held_out.sigma, held_out.position)
    assert found.fvu < 0.25
    assert found.fvu < 0.5 * pca_fvu(train.x, held_out.x, normalization, 4)
    assert found.dead < 0.1 and found.l0 <= 4


def test_the_same_seed_gives_the_same_dictionary():
    first, second = trained(small(tokens=20_000))[0], trained(small(tokens=20_000))[0]
    assert torch.equal(first.encoder, second.encoder) and torch.equal(first.decoder, second.decoder)
    assert not torch.equal(first.encoder, trained(small(tokens=20_000, seed=1))[0].encoder)


def test_the_dictionary_carries_where_it_comes_from():
    dictionary, buffer = trained(small(tokens=20_000))
    about = dictionary.provenance
    assert about.capture["n_tokens"] == buffer.captured > 0
    assert about.training["tokens"] == 20_000 and about.training["interrupted"] is False
    assert dictionary.site == "double.1.img" and dictionary.scale is not None
    assert dictionary.natural.shape == (64,) and (dictionary.natural > 0).sum() > 32


def test_natural_values_are_in_units_of_strength():
    dictionary, _ = trained(small(tokens=50_000))
    x = sparse_tokens(40_000).x[:10_000]
    code = dictionary.encode(x)
    feature = int(torch.bincount(code.indices[code.values > 0]).argmax())
    value = code.coefficient(feature)
    expected = value[value > 0].mean() * dictionary.direction(feature).norm() / dictionary.scale.at(0.5)
    assert float(dictionary.natural[feature]) == pytest.approx(float(expected), rel=0.02)


def test_decoder_rows_keep_unit_length_in_normalized_space():
    tokens = sparse_tokens(2000)
    trainer = Trainer(Normalization.fit(tokens.x), 24, small())
    for _ in range(5):
        trainer.step(tokens.x[:256])
    assert torch.allclose(trainer.decoder.norm(dim=1), torch.ones(64), atol=1e-5)


def test_dead_features_learn_the_error():
    """AuxK: features too faint to be among the k get a gradient in encoder and decoder all the same."""
    tokens = sparse_tokens(2000)
    moved = {}
    for weight in (0.0, 1 / 32):
        trainer = Trainer(Normalization.fit(tokens.x), 24, small(dead_after=100, aux_weight=weight))
        with torch.no_grad():
            trainer.encoder[:32] *= 1e-3
        trainer.silent[:32] = 10_000
        before = trainer.encoder.detach().clone(), trainer.decoder.detach().clone()
        trainer.step(tokens.x[:256])
        assert trainer.dead() > 0.3
        pairs = zip((trainer.encoder, trainer.decoder), before, strict=True)
        moved[weight] = [float(((a - b).abs().sum(1)[:32] > 1e-5).float().mean()) for a, b in pairs]
    assert max(moved[0.0]) < 0.2 and min(moved[1 / 32]) > 0.8


def test_an_interruption_keeps_what_was_learned(monkeypatch):
    steps = []
    original = Trainer.step

    def step(self, x):
        steps.append(len(x))
        if len(steps) == 10:
            raise KeyboardInterrupt
        return original(self, x)

    monkeypatch.setattr(Trainer, "step", step)
    dictionary, _ = trained()
    assert dictionary.provenance.training["interrupted"] is True
    assert torch.isfinite(dictionary.encoder).all()


@pytest.mark.parametrize("options", [{"features": 0}, {"k": 0}, {"k": 65}, {"tokens": 0}, {"batch": -1}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ValueError, match=r"at least"):
        small(**options)


def test_the_buffer_mixes_reuses_and_stays_in_its_size():
    tokens = sparse_tokens(5000)
    tokens.x[:, 1] = torch.arange(5000.0)
    buffer = ShuffleBuffer(stream(tokens, 250), 1000, 2.0, 0)
    assert len(buffer.fill().x) == 1000
    seen = torch.cat([buffer.batch(100)[:, 1] for _ in range(60)])
    assert 3500 <= buffer.captured <= 4500  # 6000 drawn at about 2 uses each, besides what it was filled with
    assert len(seen.unique()) > 2000
    early, late = seen[:500], seen[-500:]
    assert early.max() < 2000 < late.median()
    for _ in range(200):
        buffer.batch(100)
    assert buffer.captured == 5000  # a stream that has ended is no error


def test_an_empty_stream_is_refused():
    with pytest.raises(ValueError, match="no prompts"):
        ShuffleBuffer(iter(()), 10, 1.0, 0).fill()
    with pytest.raises(ValueError, match="no prompts"):
        collect([])
    with pytest.raises(ValueError, match="capacity"):
        ShuffleBuffer(iter(()), 0, 1.0, 0)
