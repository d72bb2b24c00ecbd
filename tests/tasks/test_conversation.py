"""A conversation whose cache is kept gives the answers of one that is read anew each time, whatever happened to it."""

import numpy as np
import pytest
import support
import torch
from turns import turn_model

from mmcli.errors import InputError, ModelError
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.conversation import Conversation, _behind, audio_seconds
from mmcli.types import Audio, Turn

IMAGES = [support.random_image(seed) for seed in range(3)]
AUDIOS = [Audio(f"{seed}.wav", np.random.default_rng(seed).standard_normal(4000, np.float32)) for seed in range(2)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small():
    return turn_model()


def asked(words: str, tokens: int = 12) -> ChatRequest:
    return ChatRequest(words=words, max_tokens=tokens)


def anew(loaded, turns: list[Turn], request: ChatRequest, parts=(), system: str = ""):
    """The answer to a question behind these turns, of which no cache knows."""
    fresh = Conversation(loaded, system)
    fresh.turns = list(turns)
    return fresh.ask(request, parts)


def check(conversation: Conversation, words: str, parts=(), tokens: int = 12, system: str = "") -> list[int]:
    """Ask, and compare with reading everything anew; the answer's ids."""
    expected = anew(conversation.loaded, conversation.turns, asked(words, tokens), parts, system)
    said = conversation.ask(asked(words, tokens), parts)
    assert said.ids == expected.ids
    logprobs = [token.logprob for token in expected.tokens]
    assert [token.logprob for token in said.tokens] == pytest.approx(logprobs, abs=1e-4)
    return said.ids


class Impatient:
    """Presses Ctrl-C when it has got so many tokens."""

    def __init__(self, tokens: int):
        self.left = tokens

    def __call__(self, row, token):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_three_turns_with_images_and_recordings_on_the_way(small):
    conversation = Conversation(small)
    first = check(conversation, "hello there", [IMAGES[0]])
    second = check(conversation, "and this?", [IMAGES[1], AUDIOS[0], IMAGES[2]])
    third = check(conversation, "what was the first?", [AUDIOS[1]])
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert [turn.role for turn in conversation.turns] == ["user", "model"] * 3


def test_only_what_is_new_is_read(small):
    conversation = Conversation(small)
    conversation.ask(asked("hello " * 20), [IMAGES[0]])
    small.model.read.clear()
    conversation.ask(asked("a?"))
    [count] = small.model.read
    assert count < 40  # of about 170


def test_what_the_system_says_stands_first_and_stays(small):
    text = "answer in rhymes."
    conversation = Conversation(small, text)
    plain = anew(small, [], asked("who?")).ids
    assert check(conversation, "who?", system=text) != plain
    check(conversation, "and who else?", system=text)
    conversation.clear()
    check(conversation, "who?", system=text)


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_what_was_written_before_ctrl_c_stays_part_of_it(small, tokens):
    conversation = Conversation(small)
    check(conversation, "hello", [IMAGES[0]])
    said = conversation.ask(asked("go on", 30), [AUDIOS[0]], Impatient(tokens))
    assert said.stopped and not said.ended and len(said.ids) == tokens
    assert conversation.turns[-1] == Turn("model", (small.processor.decode(said.ids),))
    check(conversation, "and then?", [IMAGES[1]])
    check(conversation, "at last?")


def test_an_interrupted_step_leaves_no_trace(small):
    """Ctrl-C in the middle of a forward pass, when half of the layers have written to the cache."""
    conversation = Conversation(small)
    check(conversation, "hello")
    layer, calls = small.model.decoder.layers[2], []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    handle = layer.register_forward_pre_hook(interrupt)
    said = conversation.ask(asked("go on", 30))
    handle.remove()
    assert said.stopped and len(said.ids) == 4  # the prefill gave the first; the fifth was under way
    check(conversation, "and then?")


def test_a_question_without_an_answer_is_as_good_as_never_asked(small):
    conversation = Conversation(small)
    check(conversation, "hello", [IMAGES[0]])
    turns = list(conversation.turns)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = small.model.decoder.layers[2].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        conversation.ask(asked("never mind"), [IMAGES[1]])
    handle.remove()
    assert conversation.turns == turns
    small.model.read.clear()
    check(conversation, "something else", [IMAGES[2]])
    assert small.model.read[1] < 0.6 * small.model.read[0]  # and what was read before is still there


def test_white_space_that_a_template_trims_costs_no_second_reading(small):
    conversation = Conversation(small)
    check(conversation, "hello " * 10, [IMAGES[0]])
    cache, written = conversation._cache, _behind(conversation._ids[-1:], small.processor.text_inputs("\n \n"))
    with torch.inference_mode():  # the model writes on: a line break, a space, a line break
        cache.grow(cache.length + 4)
        small.model.prefill(written, cache)
    conversation._ids += [0, 1, 0]
    conversation.turns[-1] = Turn("model", (small.processor.decode(conversation._ids),))
    small.model.read.clear()
    check(conversation, "and then?")
    assert small.model.read[1] < 0.5 * small.model.read[0]


def test_after_clear_nothing_is_left(small):
    conversation = Conversation(small)
    first = check(conversation, "hello", [IMAGES[0]])
    check(conversation, "again")
    conversation.clear()
    assert conversation.turns == []
    assert check(conversation, "hello", [IMAGES[0]]) == first


def test_turns_that_are_not_those_of_the_cache_are_read_anew(small):
    conversation = Conversation(small)
    conversation.ask(asked("hello"), [IMAGES[0]])
    conversation.turns[1] = Turn("model", ("something else",))
    check(conversation, "and now?")
    conversation.turns[0] = Turn("user", (IMAGES[1], "good day"))
    check(conversation, "and then?")


def test_an_answer_is_given_what_room_is_left_and_then_there_is_a_sentence():
    loaded = turn_model(context=100, seed=7)
    conversation = Conversation(loaded)
    said = conversation.ask(asked("a" * 50, 60), [IMAGES[0]])
    assert conversation.full != said.ended and len(said.ids) <= 100
    turns = list(conversation.turns)
    with pytest.raises(InputError, match=r"tokens, and small reads 100 at most.*begin another with /clear") as caught:
        conversation.ask(asked("b" * 80))
    assert caught.value.exit_code == 1 and conversation.turns == turns
    conversation.clear()
    check(conversation, "short", tokens=5)
    with pytest.raises(InputError, match="shorter"):
        Conversation(loaded).ask(asked("b" * 120))


def test_room_in_the_cache_at_least_doubles(small):
    conversation = Conversation(small)
    rooms = []
    for number in range(12):
        conversation.ask(asked(f"{'abcdefghijkl'[number]}?" * 5, 5))
        rooms.append(conversation._cache.capacity)
    grown = sorted(set(rooms))
    assert all(after >= 2 * before for before, after in zip(grown, grown[1:], strict=False)) and len(grown) < 6


def test_the_answer_is_told_as_it_comes(small):
    tokens = []
    said = Conversation(small).ask(asked("hello"), on_token=lambda row, token: tokens.append((row, token)))
    assert tokens == [(0, id) for id in said.ids]


def test_without_turns_every_question_stands_alone(loaded):
    assert not loaded.processor.capabilities.turns
    conversation = Conversation(loaded)
    first = conversation.ask(asked("what?", 6), [IMAGES[0]])
    other = conversation.ask(asked("what?", 6), [IMAGES[1]])
    again = conversation.ask(asked("what?", 6), [IMAGES[0]])
    assert first.ids == again.ids != other.ids and conversation.turns == []
    stopped = conversation.ask(asked("what?", 6), [IMAGES[0]], Impatient(3))
    assert stopped.stopped and stopped.ids == first.ids[:3]


def test_what_a_model_cannot_do_is_a_sentence(loaded, small):
    with pytest.raises(ModelError, match="takes no audio. Choose a model that does"):
        audio_seconds(loaded.processor.capabilities, "some-model")
    assert audio_seconds(small.processor.capabilities, "small") == 20
    with pytest.raises(ModelError, match="takes no --system text"):
        Conversation(loaded, "be brief")
