import json

import pytest
import support
from command import environment, mmcli

from mmcli.cli.app import run
from mmcli.cli.inspect import as_text, describe, module_tree


def test_the_facts_add_up(tiny):
    facts = describe(str(tiny))
    assert (
        facts["parameters"] == facts["modules"]["parameters"] == sum(stage["parameters"] for stage in facts["stages"])
    )
    assert (facts["image_size"], facts["soft_tokens"]) == (support.SIDE, 16)
    assert list(facts["vocabulary"].values()) == [[support.LOC, support.LOC + 1023], [support.SEG, support.SEG + 127]]


def test_layers_alike_are_one_line_of_the_tree():
    from torch import nn

    tree = module_tree(nn.Sequential(*[nn.Linear(2, 3) for _ in range(4)], nn.Linear(2, 4)), "model")
    alike, other = tree["children"]
    assert (alike["name"], alike["count"], alike["parameters"]) == ("0 … 3", 4, 9)
    assert (other["name"], other["count"]) == ("4", 1)


def test_the_text_shows_stages_shapes_and_modules(tiny):
    text = mmcli("inspect", tiny).out
    for line in (
        "28 × 28 pixels → 16 soft tokens",
        "│ vision · SigLIP",
        "16 × 48",
        "└─ 0 … 3: 4 × Layer",
        "ids 128 … 1151",
    ):
        assert line in text
    assert mmcli("inspect", tiny, "--depth", "1").out.count("\n") < text.count("\n")


def test_json_is_one_object(tiny):
    done = mmcli("inspect", tiny, "--json")
    assert done.out.count("\n") == 1 and json.loads(done.out)["name"] == str(tiny)


def test_no_weights_are_needed(tiny, tmp_path):
    for name in ("config.json", "processor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    assert mmcli("inspect", tmp_path).code == 0


def test_a_configuration_alone_tells_what_the_model_is_made_of(tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    done = mmcli("inspect", tmp_path)
    assert done.code == 0
    [note] = [line for line in done.out.splitlines() if line.startswith("note")]
    assert str(tmp_path) in note and "json" in note
    assert "│ vision · SigLIP" in done.out


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize("model", ["nano", "whisper-base", "tiny"])
def test_the_text_fits_a_terminal_and_says_the_same(columns, model, tiny):
    facts = describe(str(tiny) if model == "tiny" else model) | {"name": model}
    text, whole = as_text(facts, 3, columns), as_text(facts, 3)
    assert max(map(len, text.splitlines())) <= columns

    def words(page: str) -> list[str]:
        return sorted(word.strip(",") for word in page.split() if any(map(str.isalnum, word)))

    assert words(text) == words(whole)


def test_only_a_terminal_gets_a_narrow_page(tiny):
    def shown(tty: bool) -> str:
        streams = environment(stdout_tty=tty)
        streams.variables["COLUMNS"] = "40"
        assert run(["inspect", str(tiny)], streams) == 0
        return streams.stdout.getvalue()

    longest = max(len(line) for line in shown(False).splitlines())
    narrow = [line for line in shown(True).splitlines() if str(tiny) not in line]  # a path stays in one piece
    assert longest > 40 >= max(map(len, narrow))
