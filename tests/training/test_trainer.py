import pytest
import torch
import torch.nn.functional as F

from fluxtionary.dictionaries import Normalization
from fluxtionary.training.activity import topk
from fluxtionary.training.adam import BETAS, EPSILON, RowAdam
from fluxtionary.training.sae import SAETraining
from fluxtionary.training.start import geometric_median, start_weights
from fluxtionary.training.trainer import Trainer

from .streams import sparse_tokens

KINDS = ("topk", "batchtopk", "matryoshka", "jumprelu")


def small(**options):
    defaults = {"features": 64, "k": 4, "batch": 128, "tokens": 12_800, "aux_k": 8, "dead_after": 100}
    return SAETraining(**(defaults | {"compute": "float32"} | options))


def dense_loss(kind, trainer, x, weights):
    """The loss as written in the papers, dense and with autograd."""
    before = F.linear(x - weights["decoder_bias"], weights["encoder"], weights["encoder_bias"])
    if kind == "topk":
        values, indices = before.topk(4)
        active = torch.zeros_like(before).scatter(1, indices, values.relu())
    elif kind == "jumprelu":
        active = before * (before > trainer.jump.threshold)
    else:
        positive = before.relu()
        active = positive * (positive >= positive.flatten().topk(4 * len(x)).values.min())
    loss, groups = 0.0, trainer.config.group_sizes()
    for end in torch.tensor(groups).cumsum(0).tolist():
        error = x - weights["decoder_bias"] - active[:, :end] @ weights["decoder"][:end]
        loss = loss + error.square().mean() / len(groups)
    dead = torch.arange(40, 64)
    values, indices = before[:, dead].topk(8)
    explained = torch.zeros(len(x), 24).scatter(1, indices, values.relu()) @ weights["decoder"][dead]
    left = (error.detach() - explained).square().sum() / error.detach().square().sum()
    return loss + trainer.config.aux_weight * left


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_loss(kind):
    torch.manual_seed(0)
    trainer = Trainer(Normalization(kind="none"), 24, small(kind=kind, aux_weight=0.5))
    trainer.decoder_bias.normal_()
    trainer.encoder_bias.normal_(0, 0.1)
    trainer.encoder.normal_(0, 0.3)
    trainer.encoder_bias[40:] -= 1
    trainer.silent[40:] = 1000
    if trainer.jump is not None:
        trainer.jump.log_threshold.fill_(-0.3)
    found = {}
    trainer._update = found.update
    x = torch.randn(128, 24)
    figures = trainer.step(x, measure=True)
    weights = {
        name: getattr(trainer, name).clone().requires_grad_()
        for name in ("decoder", "encoder", "encoder_bias", "decoder_bias")
    }
    loss = dense_loss(kind, trainer, x, weights)
    loss.backward()
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in weights.items():
        assert torch.allclose(found[name], weight.grad, rtol=1e-4, atol=1e-6 * float(weight.grad.abs().max())), name


def test_a_threshold_s_gradient_is_that_of_its_window():
    """JumpReLU's own rule (arXiv 2407.14435, eq. 11 and 12), by the logarithm of the threshold, with the L0 penalty."""
    torch.manual_seed(0)
    trainer = Trainer(Normalization(kind="none"), 24, small(kind="jumprelu", l0_weight=0.3))
    trainer.jump.log_threshold.uniform_(-1, 0)
    found = {}
    trainer._update = found.update
    x = torch.randn(128, 24)
    trainer.step(x)
    threshold = trainer.jump.threshold
    before = F.linear(x, trainer.encoder)
    active = before * (before > threshold)
    slope = -2 * (x - active @ trainer.decoder) / x.numel() @ trainer.decoder.T
    width = 0.2 * threshold
    near = ((before - threshold).abs() < width / 2) / width
    l0 = float((active != 0).sum()) / 128
    price = 0.3 * 2 * (l0 / 4 - 1) / 4 / 128
    expected = (-(threshold * slope + price) * near).sum(0) * threshold
    assert expected.abs().max() > 0
    assert torch.allclose(found["log_threshold"], expected, rtol=1e-3, atol=1e-7)


def test_half_precision_gives_the_same_gradients_within_its_rounding():
    found = {}
    for compute in ("float32", "bfloat16"):
        trainer = Trainer(Normalization(kind="none"), 24, small(compute=compute))
        found[compute] = {}
        trainer._update = found[compute].update
        trainer.step(torch.randn(128, 24, generator=torch.Generator().manual_seed(0)))
    for name, exact in found["float32"].items():
        difference = (found["bfloat16"][name].float() - exact).norm() / exact.norm()
        assert 0 < difference < 0.03, name


def test_adam_is_torchs_adam(monkeypatch):
    monkeypatch.setattr("fluxtionary.training.adam.BLOCK", 1000)  # 300 rows of 8 are three blocks then
    torch.manual_seed(0)
    ours = torch.randn(300, 8)
    theirs = ours.clone().requires_grad_()
    mine = RowAdam(ours)
    adam = torch.optim.Adam([theirs], lr=1e-2, betas=BETAS, eps=EPSILON)
    for number in range(1, 6):
        theirs.grad = torch.randn(300, 8) * 1e-3
        mine.step(theirs.grad.clone(), 1e-2, torch.tensor(1.0), number)
        adam.step()
    assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_rows_keep_unit_length_and_the_gradient_along_them_is_left_out(monkeypatch):
    monkeypatch.setattr("fluxtionary.training.adam.BLOCK", 1000)
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(300, 8), dim=1)
    half = rows.bfloat16()
    adam = RowAdam(rows, unit_rows=True, half=half)
    along = rows.clone() * torch.randn(300, 1)
    assert adam.squared_norm(along) == pytest.approx(0.0, abs=1e-4)
    adam.step(torch.randn(300, 8), 1e-2, torch.tensor(1.0), 1)
    assert torch.allclose(rows.norm(dim=1), torch.ones(300), atol=1e-6)
    assert torch.equal(half, rows.bfloat16())


def test_long_gradients_are_clipped():
    moved = []
    for size in (1.0, 1000.0):
        trainer = Trainer(Normalization(kind="none"), 24, small())
        trainer.number = 60
        gradients = {name: torch.zeros_like(o.weight) for name, o in trainer.optimizers.items()}
        gradients["encoder"][0, 0] = 1e-3
        trainer._update({name: g.clone() for name, g in gradients.items()})
        gradients["encoder"][0, 0] = 1e-3 * size
        gradients["encoder"][1:] = size
        trainer._update(gradients)
        moved.append(float(trainer.optimizers["encoder"].mean.norm()))
    assert moved[0] == pytest.approx(moved[1], rel=1e-3) and moved[0] < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_its_dictionary_does_as_in_training(kind):
    config = small(kind=kind, tokens=256 * 500, batch=256, learning_rate=3e-3, dead_after=20_000)
    tokens = sparse_tokens(30_000)
    trainer = Trainer(Normalization.fit(tokens.x), 24, config, tokens.x)
    for step in range(500):
        part = torch.arange(step * 256, (step + 1) * 256) % 30_000
        figures = trainer.step(tokens.x[part], measure=step == 499)
    assert figures["fvu"] < 0.3 and figures["dead"] < 0.2
    assert figures["l0"] == pytest.approx(4, rel=0.15)
    from fluxtionary.dictionaries import Provenance, Scale
    from fluxtionary.dictionaries.scale import BINS
    from fluxtionary.residual import Site

    dictionary = trainer.dictionary(Site.parse("double.1.img"), Scale(torch.ones(BINS)), Provenance())
    held_out = sparse_tokens(2000, seed=1).x
    code = dictionary.encode(held_out)
    l0 = float((code.values != 0).sum()) / 2000
    assert l0 == pytest.approx(4, rel=0.2)
    z, found = (trainer.normalization.apply(one) for one in (held_out, dictionary.reconstruct(held_out)))
    assert float((z - found).square().sum() / z.square().sum()) < 0.35
    if kind == "matryoshka":
        errors = [
            float((z - trainer.normalization.apply(dictionary.prefix(n).reconstruct(held_out))).square().sum())
            for n in range(1, 6)
        ]
        assert errors == sorted(errors, reverse=True)


def test_dead_features_learn_the_error():
    """AuxK: features too faint to be among the k get a gradient in encoder and decoder all the same."""
    tokens = sparse_tokens(2000)
    moved = {}
    for weight in (0.0, 1 / 32):
        trainer = Trainer(Normalization.fit(tokens.x), 24, small(aux_k=64, aux_weight=weight, learning_rate=3e-3))
        trainer.encoder[:32] *= 1e-3
        trainer.silent[:32] = 10_000
        before = trainer.encoder.clone(), trainer.decoder.clone()
        trainer.step(tokens.x[:256])
        assert trainer.dead() > 0.3
        pairs = zip((trainer.encoder, trainer.decoder), before, strict=True)
        moved[weight] = [float(((a - b).abs().sum(1)[:32] > 1e-5).float().mean()) for a, b in pairs]
    assert max(moved[0.0]) < 0.2 and min(moved[1 / 32]) > 0.8


def test_a_state_is_all_there_is():
    x = sparse_tokens(2000).x
    for kind in KINDS:
        first = Trainer(Normalization.fit(x), 24, small(kind=kind))
        for step in range(6):
            if step == 3:
                second = Trainer(Normalization.fit(x), 24, small(kind=kind, seed=5))
                second.restore({name: tensor.clone() for name, tensor in first.state().items()})
            first.step(x[step * 128 : (step + 1) * 128])
        for step in range(3, 6):
            second.step(x[step * 128 : (step + 1) * 128])
        for name, tensor in first.state().items():
            assert torch.equal(tensor, second.state()[name]), (kind, name)


def test_it_starts_where_it_is_told():
    z = sparse_tokens(500, channel=1.0).x + 3
    rows, center = start_weights(24, small(start="data"), z)
    assert torch.allclose(rows.norm(dim=1), torch.ones(64), atol=1e-6)
    assert torch.allclose(center, z.mean(0), atol=1e-5)
    points = F.normalize(z - center, dim=1)
    assert (rows @ points.T).amax(1).min() > 0.9
    random, zero = start_weights(24, small(), None)
    assert (random @ points.T).amax(1).mean() < 0.85 and not zero.any()


def test_the_geometric_median_resists_outliers():
    z = torch.randn(101, 5, generator=torch.Generator().manual_seed(0))
    z[0] = 1e6
    assert geometric_median(z).abs().max() < 0.5 < z.mean(0).abs().max()


@pytest.mark.parametrize("options", [{"features": 0}, {"k": 0}, {"k": 65}, {"tokens": 0}, {"batch": -1}, {"reuse": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ValueError, match=r"at least|above 0"):
        small(**options)


def test_groups_need_features():
    assert SAETraining(kind="matryoshka", features=1024).group_sizes() == (32, 64, 128, 256, 544)
    with pytest.raises(ValueError, match="too few"):
        SAETraining(kind="matryoshka", features=16, k=4)


def test_a_frozen_decoder_stays_as_it_started_and_the_rest_learns():
    x = sparse_tokens(2560, seed=1).x
    frozen, free = (Trainer(Normalization.fit(x), 24, small(freeze_decoder=freeze)) for freeze in (True, False))
    start = frozen.decoder.clone()
    first = frozen.step(x[:128], measure=True)["fvu"]
    for step in range(1, 80):
        part = slice(step % 20 * 128, (step % 20 + 1) * 128)
        last, free_last = frozen.step(x[part], measure=True)["fvu"], free.step(x[part], measure=True)["fvu"]
    assert torch.equal(frozen.decoder, start)
    assert not torch.equal(free.decoder, start)
    assert not torch.equal(frozen.encoder, start)
    assert free_last < last < first


@pytest.mark.parametrize("room", [0, 7, 400, 100_000])
def test_where_pre_activations_are_put_changes_nothing(room, monkeypatch):
    """A small room is not used, an odd one in part, a large one as far as there are tokens."""
    monkeypatch.setattr("fluxtionary.training.activity.CHUNK", 4 * 12 * 4)  # 4 tokens at a time
    x, encoder, bias = torch.randn(50, 8), torch.randn(12, 8), torch.randn(12)
    values, indices = F.linear(x, encoder, bias).topk(3, sorted=True)
    found = topk(x, encoder, bias, 3, torch.zeros(room, dtype=torch.bfloat16))
    dense = torch.zeros(50, 12).index_put((found.rows, found.features), found.values)
    assert torch.allclose(dense, torch.zeros(50, 12).scatter(1, indices, values.relu()), atol=1e-5)


def test_a_step_in_half_precision_ends_with_the_copies_of_its_weights():
    """Gradients lie over these copies in between."""
    for aux in (0.0, 0.5):
        trainer = Trainer(Normalization(kind="none"), 24, small(compute="bfloat16", aux_weight=aux))
        for _ in range(3):
            trainer.silent[40:] = 1000
            trainer.step(torch.randn(128, 24))
            assert torch.equal(trainer.decoder_half, trainer.decoder.bfloat16())
            assert torch.equal(trainer.encoder_half, trainer.encoder.to(trainer.encoder_half.dtype))


def test_directions_that_are_frozen_stay():
    trainer = Trainer(Normalization(kind="none"), 24, small(compute="bfloat16", freeze_decoder=True))
    decoder, encoder = trainer.decoder.clone(), trainer.encoder.clone()
    for _ in range(3):
        trainer.silent[40:] = 1000
        trainer.step(torch.randn(128, 24))
    assert torch.equal(trainer.decoder, decoder)
    assert torch.equal(trainer.decoder_half, decoder.bfloat16())
    assert not torch.equal(trainer.encoder, encoder)
