"""All dictionaries of a comparison, made from made-up activations; and what a tiny Flux draws for them."""

import pytest
import torch

from fluxtionary.dictionaries import ITDA
from fluxtionary.evaluation.contestants import WAYS, Drawing, Making, draw, make
from fluxtionary.evaluation.kept_pictures import KeptPictures
from fluxtionary.training.itda_builder import ITDABuild
from fluxtionary.training.sae import SAETraining
from fluxtionary.training.sampling import Sampling

from ..interpretation.streams import SITE, MadeUpPictures
from ..training.streams import TokenStream, sparse_tokens

UNITS = SITE._replace(part="mlp")
K, FEATURES = 3, 32
MAKING = Making(
    site=SITE,
    seeds=2,
    training_pictures=3,
    pictures=3,
    moments=1,
    share=0.5,
    k=K,
    sae=SAETraining(
        features=FEATURES,
        tokens=2048,
        batch=128,
        learning_rate=0.03,
        aux_k=8,
        buffer=2000 * 116 / 2**30,
        compute="float32",
    ),
    itda=ITDABuild(atoms=24, tokens=900, batch=256, nonnegative=True),
    sampling=Sampling(steps=2, batch=2),
)


@pytest.fixture(scope="module")
def drawing():
    pictures = MadeUpPictures(8, features=24)
    others = [MadeUpPictures(8, features=24, seed=seed) for seed in (1, 2)]
    return Drawing(
        TokenStream(sparse_tokens(2000)),
        [TokenStream(sparse_tokens(2000, seed=seed)) for seed in (1, 2)],
        KeptPictures(pictures, list(pictures.batches())),
        [KeptPictures(pictures, list(other.batches())) for other in others],
        sparse_tokens(50),
    )


@pytest.fixture(scope="module")
def made(random_flux, drawing):
    return {one.name: one for one in make(random_flux, drawing, MAKING)}


def close(one, other):
    rows = [[contestant.dictionary.direction(feature) for feature in range(24)] for contestant in (one, other)]
    return float(torch.cosine_similarity(*map(torch.stack, rows), dim=1).min()) > 0.9999


def test_there_is_one_of_every_way_for_each_seed_and_the_neurons_once(made):
    ways = [way for way in WAYS if way != "neurons"]
    assert sorted(made) == sorted(["neurons-0", *(f"{way}-{seed}" for way in ways for seed in (0, 1))])
    assert all(one.dictionary.k == K for one in made.values())
    assert {str(one.site) for name, one in made.items() if name != "neurons-0"} == {str(SITE)}
    assert made["neurons-0"].site == UNITS and made["neurons-0"].dictionary.provenance.model["name"] == "made up"


def test_those_with_the_same_directions_have_them_and_no_others_do(made):
    for way, about in WAYS.items():
        if way != "neurons":
            assert close(made[f"{way}-0"], made[f"{about.directions}-0"])
            assert not close(made[f"{way}-0"], made[f"{way}-1"])  # another seed
    firsts = [made[f"{way}-0"] for way in {about.directions for about in WAYS.values()} if way != "neurons"]
    assert len(firsts) == 5 and not any(close(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


def test_each_encodes_as_its_way_says(made):
    x = sparse_tokens(200, seed=3).x
    kinds = {way: type(made[f"{way}-0"].dictionary) is ITDA for way in WAYS}
    assert [way for way, pursues in kinds.items() if pursues] == ["itda", "sae_pursuit"]
    assert (made["sae_pursuit-0"].dictionary.encode(x).values >= 0).all()
    for name, one in made.items():
        if name != "neurons-0":
            assert one.dictionary.encode(x).l0().max() <= K
    assert made["frozen_decoder-1"].dictionary.provenance.training["freeze_decoder"] is True
    assert made["sae-1"].dictionary.provenance.training["freeze_decoder"] is False


def test_only_the_random_model_s_are_of_its_own_activations(made, drawing):
    for name, one in made.items():
        random = one.way == "random_weight_model"
        assert one.pictures is (drawing.random_held_out[one.seed] if random else drawing.held_out), name
    first, second, own = (made[name] for name in ("random_weight_model-0", "random_weight_model-1", "sae-0"))
    assert not torch.equal(first.train.x, own.train.x) and not torch.equal(first.train.x, second.train.x)
    assert made["neurons-0"].train is drawing.neurons_train
    rows = {tuple(row) for row in drawing.random_train[0].tokens.x.tolist()}
    assert all(tuple(row) in rows for row in first.train.x[:20].tolist())


def test_what_was_learned_from_is_counted(made):
    tokens = {way: made[f"{way}-0"].tokens for way in WAYS}
    looked = made["itda-0"].dictionary.provenance.capture["n_tokens"]
    assert 0 < looked <= 900
    trained = dict.fromkeys(("sae", "sae_pursuit", "frozen_decoder", "random_weight_model"), 2048)
    untrained = dict.fromkeys(("neurons", "random_directions"), 0)
    assert tokens == trained | untrained | dict.fromkeys(("itda", "itda_encoder"), looked)
    assert all((made[f"{way}-0"].seconds > 0) == (tokens[way] > 0) for way in WAYS)


def test_all_is_drawn_at_once_with_random_models_beside(random_flux):
    said = []
    drawing = draw(random_flux, MAKING, said.append)
    assert said[-1] == "drew 3 of 3 held-out pictures" and "drew 2 of 3 training pictures" in said
    (train, *random) = [
        torch.cat([batch[SITE].x for batch in stream.batches()]) for stream in (drawing.train, *drawing.random_train)
    ]
    assert len(random) == 2 and all(0.4 < len(x) / (3 * 2 * 64) < 0.6 for x in (train, *random))
    assert not torch.allclose(random[0], random[1], atol=0.01)
    held_out = list(drawing.held_out.batches())
    assert drawing.held_out.sites == (SITE, UNITS) and [len(one.pictures) for one in held_out] == [2, 1]
    for seed, other in enumerate(drawing.random_held_out):
        assert other.sites == (SITE,) and other.header["weights"] == f"random, seed {1000 + seed}"
        for own, shown in zip(held_out, other.batches(), strict=True):
            assert shown.pictures is own.pictures  # a random model draws nothing: it is shown what the trained one sees
            for name in ("sigma", "position", "picture"):
                assert torch.equal(getattr(shown.tokens[SITE], name), getattr(own.tokens[SITE], name))
            assert not torch.allclose(shown.tokens[SITE].x, own.tokens[SITE].x, atol=0.01)
    assert drawing.neurons_train.x.shape[1] == held_out[0].tokens[UNITS].x.shape[1] > 128
