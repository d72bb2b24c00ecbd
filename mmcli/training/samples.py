"""What the model answers to a few held-out examples, as it is now."""

from collections.abc import Sequence
from typing import Any

from mmcli.api import Model
from mmcli.errors import MmcliError
from mmcli.example import Example
from mmcli.models.loaded import Loaded
from mmcli.training.evaluate import evaluate
from mmcli.training.loop import Score

SAMPLES = 5
LONGEST = 200  # characters of a text


def answers(loaded: Loaded, examples: Sequence[Example], count: int = SAMPLES) -> list[dict[str, Any]]:
    """For the first examples: where they stand, what is right, and what the model says."""
    model = Model(lambda: loaded, loaded.checkpoint.name, able=lambda: loaded.processor.capabilities)
    return [
        {"where": one.where, "right": _short(expected(one)), "answer": _short(_answer(model, one))}
        for one in examples[:count]
    ]


def scored(loaded: Loaded, examples: Sequence[Example]) -> Score:
    """How good the model's answers to examples are, by the measure of their task."""
    model = Model(lambda: loaded, loaded.checkpoint.name, able=lambda: loaded.processor.capabilities)
    measured = evaluate(model, examples)
    values = {name: float(value) for name, value in measured.values.items()}
    return Score(measured.main, measured.value, measured.lower_is_better, values)


def expected(example: Example) -> str:
    """What is right, as text."""
    if example.exchanges:
        return example.exchanges[0].answer
    return ", ".join(_placed(one.label, one.box) for one in example.objects) or "nothing"


def _answer(model: Model, example: Example) -> str:
    try:
        if example.task == "transcribe":
            return model.transcribe(example.audio[0]).text or ""
        path = example.images[0] if example.images else None
        if path is None:
            return ""
        if example.task in ("detect", "segment"):
            labels = list(dict.fromkeys([one.label for one in example.objects] or sorted(example.exhaustive)))[:5]
            record = model.detect(labels, path)
            width, height = record.width or 1, record.height or 1
            found = [
                _placed(one.label, (one.box[0] / width, one.box[1] / height, one.box[2] / width, one.box[3] / height))
                for one in record.objects or ()
            ]
            return ", ".join(found) or "nothing"
        prompt = example.exchanges[0].prompt
        record = model.caption(path) if prompt is None else model.caption(path, prompt=prompt)
        return record.text or ""
    except MmcliError as error:
        return f"({error})"


def _placed(label: str, box: Sequence[float]) -> str:
    x0, y0, x1, y1 = (round(100 * edge) for edge in box)
    return f"{label} {x0}-{x1} % × {y0}-{y1} %"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
