"""Records the fixtures beside it: files as other projects' libraries write them, inputs, and what they make of them.

Run it with a Python that has the libraries, never the project's own. Recorded with torch 2.13.0 and sae-lens 6.54,
eai-sparsify 1.3, dictionary-learning 0.1, orbax-checkpoint 0.12.8, equinox 0.13.8; the last with sae-lens 5.11 in an
environment of its own (with pyarrow below 18):

    python record.py saelens sparsify dictionary_learning flux1_saes exported
    python record.py saelens5

Each fixture is a folder, and beside it `NAME.recorded.safetensors` with `x [n, D]`, `codes [n, M]` and
`reconstruction [n, D]`. `python record.py check FOLDER` reads exported folders with the libraries (test_live.py).
"""

import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

FIXTURES = Path(__file__).parent / "fixtures"
D, M, K, ROWS = 12, 24, 12, 6


def random(seed):
    """A function that draws float32 tensors; numpy's legacy stream never changes."""
    state = np.random.RandomState(seed)
    return lambda *shape: torch.from_numpy(state.standard_normal(shape).astype(np.float32))


def inputs():
    """Tokens with an offset, and one channel larger than the rest."""
    draw = random(1)
    x = 1.5 * draw(ROWS, D) + 2 * draw(D)
    x[:, 0] *= 4
    return x


def fill(module, seed=0):
    """Random weights: decoder rows of many lengths, biases that matter, thresholds that some values pass."""
    draw = random(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            size = 1 / math.sqrt(D) if parameter.ndim == 2 else 0.5
            parameter.copy_(size * draw(*parameter.shape))
            if "threshold" in name:
                parameter.copy_(4 * parameter.abs() if "log" not in name else parameter)
    return module


def folder(library, name):
    path = FIXTURES / library / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write(tensors, path):
    beside = Path(f"{path}.recorded.safetensors")
    save_file(tensors, beside)
    beside.chmod(0o644)


@torch.no_grad()
def recorded(path, x, codes, reconstruction):
    codes = codes.to_dense() if codes.is_sparse else codes
    assert codes.shape == (ROWS, M) and reconstruction.shape == (ROWS, D), path
    active = (codes != 0).float().mean().item()
    assert 0.02 < active < 0.75, (path, active)  # neither nothing nor everything
    tensors = {"x": x, "codes": codes, "reconstruction": reconstruction}
    write({name: t.detach().contiguous() for name, t in tensors.items()}, path)
    print(f"{path.parent.name}/{path.name}: {active:.2f} active")


# SAELens 6 ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def saelens():
    import sae_lens as s

    def config(cls, **options):
        return cls(d_in=D, d_sae=M, **options)

    def inference(name, cls, how, **options):
        sae = fill(cls(config(how, **options)))
        path = folder("saelens", name)
        sae.save_model(path)
        again = s.SAE.load_from_disk(path)
        x = inputs()
        codes = again.encode(x)
        recorded(path, x, codes, again.decode(codes))

    inference("standard", s.StandardSAE, s.StandardSAEConfig)
    inference("standard_input_as_it_is", s.StandardSAE, s.StandardSAEConfig, apply_b_dec_to_input=False)
    inference("gated", s.GatedSAE, s.GatedSAEConfig)
    inference("gated_input_as_it_is", s.GatedSAE, s.GatedSAEConfig, apply_b_dec_to_input=False)
    inference("jumprelu", s.JumpReLUSAE, s.JumpReLUSAEConfig)
    inference("topk", s.TopKSAE, s.TopKSAEConfig, k=K)
    inference("topk_rescaled", s.TopKSAE, s.TopKSAEConfig, k=K, rescale_acts_by_decoder_norm=True)
    inference("topk_layer_norm", s.TopKSAE, s.TopKSAEConfig, k=K, normalize_activations="layer_norm")
    inference("gated_layer_norm", s.GatedSAE, s.GatedSAEConfig, normalize_activations="layer_norm")
    inference("jumprelu_norm", s.JumpReLUSAE, s.JumpReLUSAEConfig, normalize_activations="constant_norm_rescale")
    as_it_is = {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False}
    inference("standard_norm_as_it_is", s.StandardSAE, s.StandardSAEConfig, **as_it_is)

    def training(name, cls, how, **options):
        """A training's checkpoint, and what SAELens saves of it as finished: two fixtures of the same codes."""
        sae = fill(cls(config(how, **options)))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.7)
        path = folder("saelens", name)
        sae.save_inference_model(path)
        again = s.SAE.load_from_disk(path)
        x = inputs()
        codes = again.encode(x)
        recorded(path, x, codes, again.decode(codes))
        checkpoint = folder("saelens", f"checkpoint_{name}")
        sae.save_model(checkpoint)
        recorded(checkpoint, x, codes, again.decode(codes))

    k, widths = {"k": K}, {"matryoshka_widths": [4, 10, M]}
    training("batchtopk", s.BatchTopKTrainingSAE, s.BatchTopKTrainingSAEConfig, **k)
    as_it_is = {"rescale_acts_by_decoder_norm": False}
    training("batchtopk_norms_as_they_are", s.BatchTopKTrainingSAE, s.BatchTopKTrainingSAEConfig, **k, **as_it_is)
    training("matryoshka", s.MatryoshkaBatchTopKTrainingSAE, s.MatryoshkaBatchTopKTrainingSAEConfig, **k, **widths)
    training("topk_trained", s.TopKTrainingSAE, s.TopKTrainingSAEConfig, **k)
    training("jumprelu_trained", s.JumpReLUTrainingSAE, s.JumpReLUTrainingSAEConfig)

    _saelens_scaled(s, config)
    _saelens_refused(s)


def _saelens_scaled(s, config):
    """Checkpoints that leave the input's factor or whitening to a file beside."""
    from sae_lens.training.activation_scaler import ActivationScaler

    def scaled(name, cls, how, normalize, **options):
        sae = fill(cls(config(how, normalize_activations=normalize, **options)))
        path, x, scaler = folder("saelens", name), inputs(), ActivationScaler()
        sae.save_model(path)
        draw = random(3)
        many = iter(lambda: draw(50, D) @ draw(D, D) + inputs().mean(0), None)
        if normalize == "covariance_whitening":
            scaler.estimate_whitening(D, many, n_batches_for_norm_estimate=3)
        else:
            scaler.estimate_scaling_factor(D, many, n_batches_for_norm_estimate=3)
        scaler.save(str(path / "activation_scaler.json"))
        codes = sae.encode(scaler.scale(x))
        recorded(path, x, codes, scaler.unscale(sae.decode(codes)))

    once = "expected_average_only_in"
    scaled("checkpoint_factor", s.StandardTrainingSAE, s.StandardTrainingSAEConfig, once)
    scaled("checkpoint_factor_topk", s.TopKTrainingSAE, s.TopKTrainingSAEConfig, once, k=K)
    white = "covariance_whitening"
    scaled("checkpoint_whitened_topk", s.TopKTrainingSAE, s.TopKTrainingSAEConfig, white, k=K)
    as_it_is = {"apply_b_dec_to_input": False}
    scaled("checkpoint_whitened_gated", s.GatedTrainingSAE, s.GatedTrainingSAEConfig, white, **as_it_is)


def _saelens_refused(s):
    """What cannot mean the same in this project, small."""
    size, plain = {"d_in": 4, "d_sae": 6}, {"apply_b_dec_to_input": False}
    refused = {
        "temporal": (s.TemporalSAE, s.TemporalSAEConfig(**size, n_heads=2, bottleneck_factor=1)),
        "matching_pursuit": (s.MatchingPursuitSAE, s.MatchingPursuitSAEConfig(**size)),
        "abstopk": (s.AbsTopKSAE, s.AbsTopKSAEConfig(**size, k=2)),
        "transcoder": (s.Transcoder, s.TranscoderConfig(**size, **plain, d_out=4)),
        "skip_transcoder": (s.SkipTranscoder, s.SkipTranscoderConfig(**size, **plain, d_out=4)),
        "jumprelu_transcoder": (s.JumpReLUTranscoder, s.JumpReLUTranscoderConfig(**size, **plain, d_out=4)),
        "hook_z": (s.StandardSAE, s.StandardSAEConfig(**size, reshape_activations="hook_z")),
        "no_factor": (s.StandardSAE, s.StandardSAEConfig(**size, normalize_activations="expected_average_only_in")),
        "no_whitening": (s.StandardSAE, s.StandardSAEConfig(**size, normalize_activations="covariance_whitening")),
    }
    for name, (cls, how) in refused.items():
        fill(cls(how)).save_model(folder("saelens_refused", name))


# SAELens 5: flat settings ---------------------------------------------------------------------------------------------


@torch.no_grad()
def saelens5():
    from sae_lens import SAE, SAEConfig

    def record(name, finetuning=None, **options):
        how = SAEConfig(
            **{
                "architecture": "standard",
                "d_in": D,
                "d_sae": M,
                "activation_fn_str": "relu",
                "apply_b_dec_to_input": True,
                "finetuning_scaling_factor": finetuning is not None,
                "context_size": 8,
                "model_name": "none",
                "hook_name": "blocks.0.hook_resid_post",
                "hook_layer": 0,
                "hook_head_index": None,
                "prepend_bos": False,
                "dataset_path": "none",
                "dataset_trust_remote_code": False,
                "normalize_activations": "none",
                "dtype": "float32",
                "device": "cpu",
                "sae_lens_training_version": "5.11.0",
            }
            | options
        )
        sae = fill(SAE(how))
        path = folder("saelens5", name)
        sae.save_model(path)
        if finetuning:  # under the name that this version saves, or the one that it loads
            tensors = load_file(path / "sae_weights.safetensors")
            tensors[finetuning] = tensors.pop("finetuning_scaling_factor")
            save_file(tensors, path / "sae_weights.safetensors")
        again = sae if finetuning == "finetuning_scaling_factor" else SAE.load_from_disk(path)
        x = inputs()
        codes = again.encode(x)
        recorded(path, x, codes, again.decode(codes))

    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    record("standard")
    record("standard_topk", **topk)
    record("topk", architecture="topk", **topk)
    record("gated", architecture="gated")
    record("jumprelu", architecture="jumprelu", apply_b_dec_to_input=False)
    record("layer_norm", normalize_activations="layer_norm")
    record("finetuned_saved", finetuning="finetuning_scaling_factor", architecture="jumprelu")
    record("finetuned", finetuning="scaling_factor")


# sparsify -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sparsify():
    from sparsify import SparseCoder, SparseCoderConfig

    def saved(library, name, **options):
        path = folder(library, name)
        fill(SparseCoder(D, SparseCoderConfig(**{"num_latents": M, "k": K} | options))).save_to_disk(path)
        return path

    for name, options in {
        "topk": {},
        "topk_expansion": {"num_latents": 0, "expansion_factor": M // D, "normalize_decoder": False},
        "topk_multi": {"multi_topk": True},
        "groupmax": {"activation": "groupmax", "k": 6},
    }.items():
        path = saved("sparsify", name, **options)
        sae, x = SparseCoder.load_from_disk(path), inputs()
        values, indices, _ = sae.encode(x)
        recorded(path, x, torch.zeros(ROWS, M).scatter(1, indices, values), sae.decode(values, indices))
    saved("sparsify_refused", "transcode", transcode=True)
    saved("sparsify_refused", "skip_connection", skip_connection=True)


# dictionary_learning --------------------------------------------------------------------------------------------------


def dictionary_learning():
    from dictionary_learning import AutoEncoder, trainers
    from dictionary_learning.dictionary import AutoEncoderNew
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
    from dictionary_learning.utils import load_dictionary

    size = {"activation_dim": D, "dict_size": M, "steps": 10, "layer": 0, "lm_name": "none", "device": "cpu"}
    warm = {"warmup_steps": 1}
    kinds = {
        "standard": (trainers.StandardTrainer, {**warm, "sparsity_warmup_steps": None, "resample_steps": None}),
        "new": (StandardTrainerAprilUpdate, {**warm, "sparsity_warmup_steps": None}),
        "gated": (trainers.GatedSAETrainer, {**warm, "sparsity_warmup_steps": None}),
        "jumprelu": (trainers.JumpReluTrainer, {**warm, "sparsity_warmup_steps": None, "target_l0": K}),
        "topk": (trainers.TopKTrainer, {**warm, "k": K}),
        "batchtopk": (trainers.BatchTopKTrainer, {**warm, "k": K}),
        "matryoshka": (MatryoshkaBatchTopKTrainer, {**warm, "k": K, "group_fractions": [0.25, 0.25, 0.5]}),
    }
    for name, (cls, options) in kinds.items():
        trainer = cls(**size, **options)
        about = {"trainer": trainer.config, "buffer": {"io": "out", "ctx_len": 8}}
        if name == "new":
            trainer.ae = AutoEncoderNew(D, M)
            about["trainer"]["dict_class"] = "AutoEncoderNew"  # the trainer says AutoEncoder whatever it trains
        for nested in (False, True) if name in ("gated", "topk", "matryoshka") else (False,):
            ae = fill(trainer.ae)
            if isinstance(dict(ae.named_buffers()).get("threshold"), torch.Tensor):
                ae.threshold = torch.tensor(0.6)
            path = folder("dictionary_learning", name + "_backup" * nested)
            (path / "config.json").write_text(json.dumps(about, indent=4, default=str))
            if nested:
                loss = ae(inputs()).square().sum()
                loss.backward()
                trainer.optimizer.step()  # so that the optimizer has a state to save
                backup = {"step": 3, "ae": ae.state_dict(), "optimizer": trainer.optimizer.state_dict()}
                torch.save({**backup, "config": trainer.config, "norm_factor": 2.5}, path / "ae.pt")
                ae.scale_biases(2.5)  # as at the end of a training
            else:
                torch.save(ae.state_dict(), path / "ae.pt")
                ae, _ = load_dictionary(str(path), "cpu")
            assert nested or name != "standard" or isinstance(ae, AutoEncoder)
            x = inputs()
            codes = ae.encode(x)
            recorded(path, x, codes, ae.decode(codes))


# flux1-saes: orbax folders --------------------------------------------------------------------------------------------


def flux1_saes():
    """Folders as orbax writes a training's state of that shape; the test has the published formula."""
    import equinox
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    def module(name, values):
        cls = type(name, (equinox.Module,), {"__annotations__": dict.fromkeys(values, object)})
        return cls(**{key: jnp.asarray(np.asarray(value)) for key, value in values.items()})

    draw = random(5)
    many = inputs().repeat(40, 1) + 2 * draw(40 * ROWS, D)
    rotation = torch.linalg.svd(many - many.mean(0), full_matrices=True).Vh.bfloat16().T
    turned = many @ rotation.float()
    params = {"b_pre": draw(D), "W_enc": draw(D, M), "b_mid": draw(M), "W_dec": draw(M, D), "b_post": 0.3 * draw(D)}
    info = {
        "avg_norm": torch.tensor(3.0),
        "feature_means": turned.mean(0),
        "feature_square_means": turned.square().mean(0),
        "whitening_matrix": rotation.float(),
        "n_steps": torch.tensor(30),
    }
    for name, compact in (("sae_double_l18_img-k6", True), ("sae_single_l9_both-k6", False)):
        path = folder("flux1_saes", name)
        state = {"sae_params": module("SAE", params), "info": module("SAEInfo", info)}
        state |= {"ema": module("SAE", params)} if compact else {}
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=compact)
        with ocp.CheckpointManager(path.resolve(), ocp.Checkpointer(handler)) as manager:
            manager.save(30, state)
        for marker in path.rglob("commit_success.txt"):  # names this machine's folders, and is read by nobody
            marker.unlink()
        write({"x": 3 * many[:ROWS].contiguous()}, path)  # large enough to be clipped


# What this project exports, read by the libraries ---------------------------------------------------------------------


def exported():
    """Exports `export_examples.py`'s dictionaries and records what SAELens and sparsify make of them."""
    with tempfile.TemporaryDirectory() as place:  # the repository's root is the package
        (Path(place) / "fluxtionary").symlink_to(Path(__file__).parents[3], target_is_directory=True)
        sys.path.insert(0, place)
        sys.path.insert(0, str(Path(__file__).parent))
        from export_examples import EXAMPLES

        from fluxtionary.dictionaries.exporters import export_dictionary

        for format, name, make in EXAMPLES:
            path = folder(f"exported_{format}", name)
            path.rmdir()
            export_dictionary(make(), path, format)
            recorded(path, *read_by_library(path, format))


@torch.no_grad()
def read_by_library(path, format):
    """`x`, codes and reconstruction of an exported folder."""
    x = inputs()
    if format == "saelens":
        from sae_lens import SAE

        sae = SAE.load_from_disk(path)
        codes = sae.encode(x)
        return x, codes, sae.decode(codes)
    from sparsify import SparseCoder

    sae = SparseCoder.load_from_disk(path)
    values, indices, _ = sae.encode(x)
    return x, torch.zeros(ROWS, M).scatter(1, indices, values), sae.decode(values, indices)


def check(place):
    """Reads `PLACE/FORMAT/NAME` folders with the libraries and writes what they make of them beside."""
    for path in sorted(Path(place).glob("*/*")):
        if path.is_dir():
            recorded(path, *read_by_library(path, path.parent.name))


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check(sys.argv[2])
    else:
        for part in sys.argv[1:]:
            globals()[part]()
