"""The stages around the training: words to tokens, earlier weights to new ones, weights to a model that loads."""

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmcli.hub.layout import BUNDLED
from mmcli.hub.weights import Rule, load_strict
from mmcli.training.recipes.nano import export, texts
from mmcli.training.recipes.nano.start import from_earlier
from mmcli.training.recipes.nano.tokenizer import names, train

WORDS = Counter({"cat": 9, "dog": 9, "sitting": 5, "a": 40, "table": 4, "bears": 4})


@pytest.fixture(scope="module")
def learned():
    return train(WORDS, Counter({"a": 40, "cat": 9}))


def test_whole_words_have_ids_of_their_own_and_stand_side_by_side(learned):
    tokenizer, (begin, middle, end) = learned
    first, *later = tokenizer.encode("a cat sitting, a dog").ids
    assert begin <= first < middle
    assert all(middle <= token < end for token in later), "each word is one token, and so is the comma"
    assert tokenizer.decode([first, *later]) == "a cat sitting, a dog"
    for nonsense in (" sittingcat", " tabble"):
        pieces = tokenizer.encode(nonsense).ids
        assert not all(middle <= token < end for token in pieces), "what is no word cannot be written in a sentence"
    assert tokenizer.token_to_id("<seg000>") == tokenizer.token_to_id("<loc0000>") + 1024


def test_names_tell_which_classes_a_word_may_mean(learned):
    tokenizer, _ = learned
    classes_of = {tokenizer.decode([token]).strip(): classes for token, *classes in names(tokenizer)}
    assert classes_of["dog"] == [16, 52]  # a dog or a hot dog
    assert classes_of["cat"] == [15] and classes_of["table"] == [60]
    assert "a" not in classes_of and "sitting" not in classes_of


@pytest.mark.parametrize(
    ("sentence", "plain"),
    [
        ("A man in a T-shirt .", "a man in a shirt"),
        ("Two dogs , one black ; one white!", "two dogs, one black one white"),
        ("The man\u2019s well-worn hat", "the man's well worn hat"),
    ],
)
def test_sentences_are_taught_in_plain_words(sentence, plain):
    assert texts.clean(sentence) == plain


class Part(nn.Module):
    """The names and kinds of tensor that a training takes over."""

    def __init__(self, rows: int, side: int):
        super().__init__()
        self.decoder = nn.Module()
        self.decoder.embedding = nn.Embedding(rows, 8)
        self.tower = nn.Module()
        self.tower.grid_position = nn.Parameter(torch.zeros(side**2, 8))
        self.tower.mask_head = nn.Linear(3, 4)


def test_an_earlier_model_lends_its_words_by_name_and_its_grid_stretched(learned):
    new, _ = learned
    old, _ = train(Counter({"cat": 9, "a": 40}), Counter({"a": 40}))
    torch.manual_seed(0)
    before, after = Part(9352, 2), Part(9352, 3)
    before.tower.grid_position.data = torch.arange(4.0)[:, None].expand(-1, 8).clone()
    weights = {name: tensor for name, tensor in before.state_dict().items() if "mask_head" not in name}
    assert from_earlier(after, weights, old, new) == ["tower.mask_head.weight", "tower.mask_head.bias"]
    table, fresh = before.decoder.embedding.weight, after.decoder.embedding.weight
    for word in ("<loc0007>", " cat"):
        torch.testing.assert_close(fresh[new.encode(word).ids[0]], table[old.encode(word).ids[0]])
    pieces = torch.tensor(old.encode(" dog").ids)
    assert len(pieces) > 1
    torch.testing.assert_close(fresh[new.encode(" dog").ids[0]], table[pieces].mean(0))
    assert after.tower.grid_position[4].tolist() == [1.5] * 8  # the middle of four


def test_an_exported_training_loads_and_differs_by_no_more_than_rounding(tmp_path):
    torch.manual_seed(0)
    module = nn.ModuleDict({"wide": nn.Linear(96, 64), "tower": nn.Linear(4, 4)})
    state = module.state_dict()
    run = tmp_path / "run"
    run.mkdir()
    model = {f"nano.{name}": tensor for name, tensor in state.items()} | {"map_head.weight": torch.ones(3)}
    save_file(model, run / "checkpoint.safetensors")
    kept = export.stored({k.removeprefix("nano."): v for k, v in load_file(run / "checkpoint.safetensors").items()
                          if k.startswith("nano.")}, "int8")  # fmt: skip
    save_file(kept, tmp_path / "model.safetensors")
    assert kept["wide.weight"].dtype == torch.int8 and "map_head.weight" not in kept
    with torch.device("meta"):
        loaded = nn.ModuleDict({"wide": nn.Linear(96, 64), "tower": nn.Linear(4, 4)})
    load_strict(loaded, tmp_path, [Rule("{}.{}", "{}.{}")], torch.device("cpu"), torch.float32)
    rough = state["wide.weight"].abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(loaded["wide"].weight.data, export.unpacked(kept)["wide.weight"])
    assert ((loaded["wide"].weight - state["wide.weight"]).abs() <= rough * 0.51).all()


def test_the_bundled_names_and_ranges_are_those_of_the_bundled_words():
    config = json.loads((BUNDLED["nano"] / "config.json").read_text("utf-8"))
    assert len(config["class_tokens"]) == 80
    assert config["first_words"][1] == config["later_words"][0] and config["later_words"][1] < config["loc_token"]
