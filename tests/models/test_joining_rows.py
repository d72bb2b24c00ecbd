"""Every family whose rows join: an answer begun while others are written is that of the image alone; on the CPU.

`test_fast_paths.py` has the same on a GPU, which rounds products of more rows otherwise: there nothing is drawn.
"""

from types import SimpleNamespace

import pytest
from every_family import FAMILIES, load_family
from support import random_image

from mmcli.tasks.answer import answer, answer_each, inputs_of, rows_join
from mmcli.tasks.caption import CaptionRequest

# Of such sizes a prompt has more or fewer tokens, where images keep their aspect.
SIZES = [(50, 37), (20, 90), (64, 64), (120, 30), (31, 31), (90, 60), (15, 40)]
# Gemma 3n's tower takes half a minute: see gemma3n/test_joining_rows.py.
NAMES = [name for name in FAMILIES if name not in ("whisper", "nano", "gemma3n", "florence2")]


@pytest.fixture(scope="module", params=NAMES)
def loaded(request, tmp_path_factory):
    return load_family(tmp_path_factory.mktemp("checkpoint"), request.param, "cpu")


@pytest.mark.parametrize("drawn", [{}, {"temperature": 1.2, "top_p": 0.9, "seed": 3}], ids=["greedy", "drawn"])
def test_answers_are_those_of_images_alone(loaded, drawn, monkeypatch):
    request = CaptionRequest(max_tokens=8, **drawn)
    assert rows_join(loaded, request) and not rows_join(loaded, CaptionRequest(beams=2))
    images = [random_image(number, *size) for number, size in enumerate(SIZES)]

    def alone(processor):
        model = SimpleNamespace(**vars(loaded) | {"processor": processor})
        return [answer(model, [[image]], request)[0] for image in images]

    free = alone(loaded.processor)
    lengths = {id: {one.ids.index(id) if id in one.ids else 8 for one in free} for one in free for id in one.ids}
    ends = {max(lengths, key=lambda id: len(lengths[id]))}  # so that some answers are short
    monkeypatch.setattr(loaded.processor, "stop_ids", loaded.processor.stop_ids | ends)
    expected = alone(loaded.processor)
    assert len({len(one.ids) for one in expected}) > 1
    inputs = [inputs_of(loaded, request, image) for image in images]

    def take(count, wait):
        return [waiting.pop(0) for _ in range(min(count, len(waiting)))] or None

    for places, at_once in [(3, 3), (5, 2)] if loaded.processor.square else [(3, 3)]:
        waiting = list(inputs)
        found = dict(answer_each(loaded, request, take, places, at_once))
        for number, one in enumerate(expected):
            assert (found[number].ids, found[number].ended) == (one.ids, one.ended), number
            assert found[number].logprobs == pytest.approx(one.logprobs, abs=1e-3)
