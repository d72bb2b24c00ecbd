"""Names of models that need no network: bundled, folders, and names that are neither."""

import pytest

from mmcli.errors import ModelError
from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import resolve
from mmcli.hub.verify import verify_folder


def folder_with(path, config: str):
    path.mkdir(parents=True)
    (path / "config.json").write_text(config)
    return path


def test_a_folder_is_taken_as_it_is(tmp_path):
    folder = folder_with(tmp_path / "m", '{"model_type": "paligemma"}')
    found = resolve(str(folder))
    assert (found.name, found.folder, found.revision) == (str(folder), folder, None)
    assert found.config == {"model_type": "paligemma"}


def test_a_folder_named_like_a_hub_model_wins_over_the_hub(tmp_path, monkeypatch):
    folder_with(tmp_path / "google" / "paligemma", "{}")
    monkeypatch.chdir(tmp_path)
    assert resolve("google/paligemma").folder.resolve() == tmp_path / "google" / "paligemma"


@pytest.mark.skipif(not (BUNDLED["nano"] / "config.json").exists(), reason="the bundled model is not built yet")
def test_the_bundled_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    folder_with(tmp_path / "nano", '{"model_type": "other"}')
    monkeypatch.chdir(tmp_path)
    assert resolve("nano").config["model_type"] == "mmcli-nano"
    assert resolve("./nano").config["model_type"] == "other"


@pytest.mark.parametrize(
    "name, message",
    [
        ("./missing", "There is no folder ./missing"),
        ("/nowhere/at/all", "There is no folder /nowhere/at/all"),
        ("~/missing-model", "There is no folder ~/missing-model"),
        ("a/b/c", "There is no folder a/b/c"),  # too many parts for the hub
        ("models/", "There is no folder models/"),
        ("nanoo", "There is no model nanoo. Perhaps you mean nano."),  # no owner: neither a path nor a hub name
        ("", "There is no model"),
        ("a b/c", "There is no model a b/c"),
    ],
)
def test_names_that_can_only_be_mistakes_never_reach_the_network(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        resolve(name)


@pytest.mark.parametrize("bundled", [True, False])
def test_what_has_no_revisions_has_not_the_one_that_is_asked_for(bundled, tmp_path):
    name = "nano" if bundled else str(folder_with(tmp_path / "model", '{"model_type": "other"}'))
    with pytest.raises(ModelError, match="has no revision v1"):
        resolve(name, "v1")


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file.*folder that holds config.json"):
        resolve(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "config, message", [("{", "cannot be read"), ("[1]", "no JSON object"), (None, r"has no config\.json")]
)
def test_a_folder_without_a_sound_config_is_named(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=message):
        resolve(str(tmp_path))


def test_verify_folder_finds_missing_shards_and_broken_headers(tmp_path):
    (tmp_path / "model-2.safetensors").write_bytes(b"cut")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    problems = {finding.file.name: finding.problem for finding in verify_folder(tmp_path) if finding.problem}
    assert problems["model-1.safetensors"] == "it is missing" == problems["config.json"]
    assert "damaged" in problems["model-2.safetensors"]
