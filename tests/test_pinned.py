"""The bundled models say about the examples what they said when their tables were written: see `pinned`."""

import pinned
import pytest

CASES = [(model, command) for model, commands in pinned.COMMANDS.items() for command in commands]


@pytest.mark.parametrize(("model", "command"), CASES, ids=[" ".join(command) for _, command in CASES])
def test_the_bundled_models_answer_as_written_down(model, command):
    expected = pinned.written(model)[" ".join(command)]
    found = pinned.answers(command)
    measured, wanted = (numbers(table) for table in (found, expected))
    assert found == expected, f"if that is meant: python tests/pinned.py {model}"
    assert measured == pytest.approx(wanted, rel=2e-3, abs=0.05)


def numbers(table: dict[str, dict]) -> list[float]:
    """What another CPU's rounding may move, taken out of a table: pixels on the outlines of masks, times of words."""
    taken = []
    for entry in table.values():
        taken += [found.pop("mask_pixels") for found in entry.get("objects", ()) if "mask_pixels" in found]
        for segment in entry.get("segments", ()):
            taken += [segment.pop("start"), segment.pop("end")]
            taken += [word.pop(0) for word in segment.get("words", ()) for _ in ("start", "end")]
    return taken


@pytest.mark.parametrize("model", pinned.COMMANDS)
def test_a_table_holds_what_is_asked_and_nothing_else(model):
    written = pinned.written(model)
    assert list(written) == [" ".join(command) for command in pinned.COMMANDS[model]]
    for command in pinned.COMMANDS[model]:
        assert tuple(written[" ".join(command)]) == pinned.files(command)
