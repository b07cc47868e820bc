"""The fingerprint is the same for what encodes and decodes alike, and another for what does not."""

import copy
from dataclasses import replace

import pytest
import torch

from fluxtionary.dictionaries import Dictionary, Provenance, load_dictionary, save_dictionary
from fluxtionary.dictionaries import fingerprint as module
from fluxtionary.dictionaries.fingerprint import fingerprint

from .kinds import EXAMPLES

MADE = {name: make for name, make in EXAMPLES.items() if isinstance(make(), Dictionary) and name != "vector"}


@pytest.mark.parametrize("name", MADE)
def test_a_file_has_that_of_what_was_saved(name, tmp_path):
    dictionary = MADE[name]()
    save_dictionary(dictionary, tmp_path / "x.safetensors")
    assert fingerprint(load_dictionary(tmp_path / "x.safetensors")) == fingerprint(dictionary)
    assert len(fingerprint(dictionary)) == 64


@pytest.mark.parametrize("name", MADE)
def test_figures_and_provenance_do_not_count(name):
    dictionary = MADE[name]()
    before = fingerprint(dictionary)
    dictionary.scale = dictionary.natural = None
    dictionary.provenance = Provenance(metrics={"fvu": 0.5}, model={"name": "other"})
    assert fingerprint(dictionary) == before


def test_no_two_kinds_share_one():
    found = {name: fingerprint(make()) for name, make in MADE.items()}
    assert found.pop("matryoshka") == found["batchtopk"]  # groups say how it was trained, codes are the same
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("name", MADE)
def test_every_number_of_every_tensor_counts(name):
    dictionary = MADE[name]()
    before = fingerprint(dictionary)
    for attribute in ("decoder", "decoder_bias", "encoder", "encoder_bias"):
        tensor = getattr(dictionary, attribute, None)
        if tensor is None:
            continue
        other = copy.copy(dictionary)
        changed = tensor.clone()
        changed.view(-1)[-1] += 1
        setattr(other, attribute, changed)
        assert fingerprint(other) != before, attribute
    norm = dictionary.normalization
    for attribute in ("mean", "std", "rotation"):
        if norm is not None and getattr(norm, attribute) is not None:
            other = copy.copy(dictionary)
            other.normalization = replace(norm, **{attribute: getattr(norm, attribute) + 0.5})
            assert fingerprint(other) != before, attribute


def test_site_activation_and_type_count():
    dictionary = MADE["topk"]()
    found = {fingerprint(dictionary)}
    other = copy.copy(dictionary)
    other.site = "double.0.img"
    found.add(fingerprint(other))
    other = copy.copy(dictionary)
    other.activation = replace(dictionary.activation, k=3)
    found.add(fingerprint(other))
    other = copy.copy(dictionary)
    other.decoder = dictionary.decoder.to(torch.bfloat16)
    found.add(fingerprint(other))
    assert len(found) == 4


def test_parts_add_up_to_the_whole(monkeypatch):
    dictionary = MADE["topk"]()
    whole = fingerprint(dictionary)
    monkeypatch.setattr(module, "_CHUNK", 100)
    assert fingerprint(dictionary) == whole
    dictionary.decoder = dictionary.decoder.T.contiguous().T  # the same numbers, laid out otherwise
    assert fingerprint(dictionary) == whole
