"""`mmcli inspect` of a Gemma 3n: from config.json and the processor's files alone, at the published sizes."""

import json

import pytest
from command import mmcli
from gemma3n_folders import ids_config, write_processor

# The layers are those of E4B; the tokenizer, and with it the tables, are small.
LINES = (
    "768 × 768 pixels → 256 soft tokens",
    "up to 30 s in one piece",
    "vision · MobileNetV5",
    "256 × 2048",
    "audio encoder · conformer",
    "188 × 2048",
    "per-layer table · table",
    "T × 35 × 256",
    "35 layers, mlp 16384",
    "8 heads of 256, 2 for keys and values",
    "28 layers attend to the last 512 tokens",
    "the last 15 share keys and values of earlier ones",
    "10 layers close 95% of their gates",
    "4 streams (AltUp), LAUREL of rank 64",
    "logits capped at 30",
)


@pytest.fixture
def folder(tmp_path):
    write_processor(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(ids_config()))
    return tmp_path


def test_it_shows_every_stage_with_its_sizes(folder):
    done = mmcli("inspect", folder)
    notes = [note for stage in json.loads(mmcli("inspect", folder, "--json").out)["stages"] for note in stage["notes"]]
    assert done.code == 0 and [line for line in LINES if line not in done.out and line not in notes] == []
    assert all(word in done.out for note in notes for word in note.split())


def test_the_facts_add_up(folder):
    facts = json.loads(mmcli("inspect", folder, "--json").out)
    assert facts["parameters"] == sum(stage["parameters"] for stage in facts["stages"])
    assert (facts["image_size"], facts["soft_tokens"], facts["audio_seconds"]) == (768, 256, 30.0)
    assert facts["vocabulary"] == {}


def test_a_decoder_alone_takes_in_neither_images_nor_recordings(folder):
    text = ids_config()["text_config"]
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3n_text"} | text))
    done = mmcli("inspect", folder)
    assert done.code == 0 and "pixels" not in done.out and "audio" not in done.out
    assert "decoder · Gemma 3n" in done.out


def test_a_slice_tells_how_many_layers_have_which_width(folder):
    config = ids_config()
    config["text_config"] |= {"intermediate_size": [8192] * 30 + [16384] * 5}
    (folder / "config.json").write_text(json.dumps(config))
    done = mmcli("inspect", folder, "--json")
    assert "35 layers, 30 with mlp 8192, 5 with mlp 16384" in done.out
