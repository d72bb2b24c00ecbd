"""A conversation with Gemma 3n whose cache is kept: each answer is the one to all tokens so far, read at once."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from gemma3n_folders import audio
from support import random_image

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation
from mmcli.types import Audio

pytestmark = pytest.mark.usefixtures("shallow_tower")

STEPS = 12


class Listener:
    """Takes down what a model is given to read, and puts it together again."""

    def __init__(self, model, monkeypatch):
        self.model, self.prefill = model, model.prefill
        self.row: list[int] = []
        self.inputs: list[Inputs] = []
        monkeypatch.setattr(model, "prefill", self.listen)

    def listen(self, inputs, cache):
        self.row = self.row[: cache.length] + inputs.tokens[0].tolist()
        self.inputs = [*self.inputs, inputs] if cache.length else [inputs]
        return self.prefill(inputs, cache)

    def all(self) -> Inputs:
        tokens = torch.tensor([self.row])
        images = tuple(image for inputs in self.inputs for image in inputs.images)
        audios = [inputs for inputs in self.inputs if inputs.audio is not None]
        longest = max(inputs.audio.shape[1] for inputs in audios)
        return Inputs(
            tokens,
            torch.ones_like(tokens, dtype=torch.bool),
            images,
            audio=torch.cat([F.pad(i.audio, (0, 0, 0, longest - i.audio.shape[1])) for i in audios]),
            audio_valid=torch.cat([F.pad(i.audio_valid, (0, longest - i.audio.shape[1])) for i in audios]),
        )


@pytest.fixture(scope="module")
def loaded(gemma3n):
    loaded = load(resolve(str(gemma3n.folder)), "cpu", "float32")
    # Images of a third of the side: the tower gives as many soft tokens, in a ninth of the time.
    loaded.processor.images = replace(loaded.processor.images, side=256)
    return loaded


def test_the_cache_that_is_kept_changes_no_answer(loaded, monkeypatch):
    listener = Listener(loaded.model, monkeypatch)
    conversation = Conversation(loaded, "be kind")

    def ask(words, parts=(), on_token=None):
        return conversation.ask(ChatRequest(words=words, max_tokens=STEPS), parts, on_token)

    def stop(row, id):
        raise KeyboardInterrupt

    first = ask("who speaks?", [Audio("a", audio(0, 2.0)), Audio("b", audio(1, 3.1))])
    listener.row += first.ids
    stopped = ask("and what is this?", [random_image(1)], stop)
    assert stopped.stopped and len(stopped.ids) == 1
    listener.row += stopped.ids
    last = ask("say it again", [Audio("c", audio(2, 1.0))])
    assert len(listener.inputs) == 3
    assert len(listener.inputs[-1].tokens[0]) < 230  # only what is new: 188 of a recording, and words
    whole = listener.all()
    assert len(whole.images) == 1 and len(whole.audio) == 3
    monkeypatch.undo()
    steps = generate(loaded.model, whole, stop_ids=loaded.processor.stop_ids, max_tokens=STEPS)
    expected = [event for [event] in steps if event.id not in loaded.processor.stop_ids]
    assert list(last.ids) == [event.id for event in expected]
    logprobs = [event.logprob for event in expected]
    assert [token.logprob for token in last.tokens] == pytest.approx(logprobs, abs=1e-4)
    conversation.clear()
    assert ask("who speaks?", [Audio("a", audio(0, 2.0)), Audio("b", audio(1, 3.1))]).ids == first.ids
