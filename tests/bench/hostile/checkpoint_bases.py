"""Small sound checkpoints of every family, which other files here damage.

    python tests/bench/hostile/checkpoint_bases.py FOLDER NAME...

It is a program of its own, for transformers is large.
"""

import json
import shutil
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[2])  # in place of this folder, where http.py would hide Python's own

import support  # noqa: E402 (before transformers)

SHARD = "200KB"


def write(folder: Path, name: str) -> None:
    """The base `name` into `folder`; a bundled one links to its weights, which are large.

    What makes a base is imported for it alone: most of this program's time are imports.
    """
    from mmcli.hub.layout import BUNDLED

    if name in BUNDLED:
        folder.mkdir()
        for file in BUNDLED[name].iterdir():
            if file.suffix == ".safetensors":
                (folder / file.name).symlink_to(file)
            elif file.suffix == ".json":
                shutil.copy(file, folder)
    elif name.startswith("paligemma"):
        second = name.endswith("2")
        reference = support.tiny_reference(support.tiny_config(second))
        support.write_checkpoint(folder, reference, shard_size=SHARD if second else "5GB")
        shutil.copy(BUNDLED["nano"] / "mask_decoder.safetensors", folder)
    elif name == "omnilmm":
        import omnilmm_folders

        folder.mkdir()
        omnilmm_folders.write_folder(folder, 1)
    elif name.startswith("minicpmv"):
        import minicpmv_folders

        folder.mkdir()
        minicpmv_folders.write_folder(folder, name.removeprefix("minicpmv-"))
    elif name == "mllama":
        import mllama_folders

        mllama_folders.write_checkpoint(folder, mllama_folders.tiny_reference())
    elif name in ("idefics3", "smolvlm"):
        import smolvlm_folders

        smolvlm_folders.write_checkpoint(folder, name, smolvlm_folders.tiny_reference(name))
    elif name.startswith("fuyu"):
        import fuyu_folders

        fuyu_folders.write_checkpoint(folder, fuyu_folders.tiny_reference(fuyu_folders.tiny_config()))
        if name == "fuyu-pickle":
            _as_pickle(folder)
    elif name == "whisper":
        import whisper_folders

        whisper_folders.write_checkpoint(folder, seconds=30)
    elif name == "whisper.en":
        import whisper_folders

        whisper_folders.write_checkpoint(folder, multilingual=False, seconds=30)
        _in_parts(folder)
    elif name == "gemma3n-text":
        import gemma3n_folders
        import gemma3n_models

        alone = gemma3n_models.tiny_text_reference()
        alone.generation_config.eos_token_id = [1]
        alone.save_pretrained(folder)
        gemma3n_folders.tiny_tokenizer().save_pretrained(folder)
    else:
        _whole_gemma3n(folder)


def _whole_gemma3n(folder: Path) -> None:
    """Without its weights, of which the image tower alone has 1.2 GB: enough for `inspect`."""
    import gemma3n_folders
    import gemma3n_models
    from transformers import Gemma3nConfig

    gemma3n_folders.write_processor(folder)
    raw = gemma3n_folders.ids_config()
    raw["text_config"] |= gemma3n_models.text_settings()
    raw["audio_config"] |= {"hidden_size": 32, "conf_num_hidden_layers": 2, "conf_num_attention_heads": 4}
    (folder / "config.json").write_text(Gemma3nConfig(**raw).to_json_string(use_diff=False))


def _as_pickle(folder: Path) -> None:
    """The weights as the one pickle that old checkpoints have."""
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def _in_parts(folder: Path) -> None:
    """Take tokenizer.json apart into vocab.json, merges.txt and added_tokens.json, as old checkpoints have them."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    plain = {name: id for name, id in added.items() if not name.startswith("<|")}
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"] | plain))
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    special = {name: id for name, id in added.items() if name.startswith("<|")}
    (folder / "added_tokens.json").write_text(json.dumps(special))
    (folder / "tokenizer.json").unlink()


if __name__ == "__main__":
    for wanted in sys.argv[2:]:
        write(Path(sys.argv[1]) / wanted, wanted)
