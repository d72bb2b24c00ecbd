"""Sentences of the bundled model: whole words, of what is seen, that come to an end and repeat nothing."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from written_model import WrittenModel, noise

from mmcli.engine.collect import complete
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.row_state import RowState
from mmcli.engine.sampling import Sampling
from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import resolve
from mmcli.models.nano.capabilities import BEAMS
from mmcli.models.nano.config import CLASSES, NanoConfig
from mmcli.models.nano.finding import look
from mmcli.models.nano.labels import COCO
from mmcli.models.nano.sentences import Wording
from mmcli.tasks.answer import answer
from mmcli.tasks.caption import CaptionRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
PHOTOS = ("cat.jpg", "coffee.jpg", "astronaut.jpg")
MODES = {
    "greedy": {},
    "sampled": {"sampling": Sampling(temperature=1.5, seed=5)},
    "beams": {"beams": 3},
}


@pytest.fixture(scope="module")
def photos():
    return [[Image.open(EXAMPLES / name).convert("RGB").resize((448, 448))] for name in PHOTOS]


@dataclass
class Saw(RowState):
    """What a detector saw in images, as nano's own state of a batch holds it."""

    evidence: torch.Tensor  # [P, 80]
    image: torch.Tensor  # [B]

    def keep(self, rows):
        self.image = self.image[rows]


class Noise(WrittenModel):
    """Logits that are a function of the tokens written so far and of nothing else; a detector that saw a dog."""

    def __init__(self, config: NanoConfig, seed: int, likely: list[int]):
        super().__init__()
        self.config, self.likely = config, likely
        self.seed = torch.nn.Parameter(torch.tensor(float(seed)), requires_grad=False)

    def prefill(self, inputs, cache):
        evidence = torch.full((1, CLASSES), -9.0)
        evidence[0, COCO.index("dog")] = 3.0
        rows = torch.zeros(len(inputs.tokens), dtype=torch.long)
        cache.context = Saw(evidence=evidence, image=rows)
        return self.read(inputs.tokens[:, -1:], cache)

    def logits_behind(self, written):
        logits = torch.stack([noise(self.seed, row, self.config.decoder.vocabulary) * 3 for row in written.tolist()])
        logits[:, self.likely] += 8
        logits[:, self.config.eos_token] += 2 * written.shape[1]  # so that answers end at last
        return logits


def write(nano, words: str, prompts: list[str], mode: str, seed: int) -> list[list[int]]:
    """What such a model writes, to which the tokens of `words` and the end are likely."""
    likely = [id for word in words.split() for text in (word, " " + word) for id in nano.processor.text_ids(text)]
    model = Noise(nano.config, seed, likely)
    inputs = nano.processor.rows(prompts)
    settings = {"stop_ids": nano.processor.stop_ids, "max_tokens": 30, **MODES[mode]}
    answers = complete(model, inputs, **settings)
    assert all(one.ended for one in answers)
    return [list(one.ids) for one in answers]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_no_sentence_ends_on_a_word_that_ends_none(nano, mode, seed):
    never = set(nano.config.sentences.never_last)
    written = write(nano, "a with the white on of and dog wearing", ["caption en"], mode, seed)
    assert all(ids and ids[-1] not in never for ids in written)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_no_sentence_says_a_word_twice(nano, mode, seed):
    """The forms of a word count as one; words like "a" and "of" may come again."""
    written = write(nano, "a window windows box building dog with", ["caption en"], mode, seed)
    for ids in written:
        words = [nano.processor.decode([id]).strip().rstrip("s") for id in ids]
        said = [word for word in words if word in ("window", "box", "building")]
        assert len(said) == len(set(said)), words
    assert any(len(ids) > 3 for ids in written)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prompt", ["caption en", "answer en what animal is this?"])
def test_nothing_is_named_that_the_detector_does_not_see(nano, mode, prompt):
    ids = {id for own in write(nano, "cat dog truck horse person a", [prompt], mode, 1) for id in own}
    named = {classes for token, *classes in nano.config.names if token in ids for classes in classes}
    assert named <= {COCO.index("dog"), COCO.index("hot dog")}


def test_only_sentences_are_held_to_the_rules_of_sentences(nano):
    """A colour is an answer; "white" ends no sentence."""
    ids = nano.processor.text_ids("white")
    for prompt, may_end in (("answer en what color is it?", True), ("caption en", False), ("detect cat", True)):
        wording = nano.processor.rows([prompt]).processor
        context = Saw(evidence=torch.zeros(1, CLASSES), image=torch.tensor([0]))
        states = wording.advance(wording.begin(torch.device("cpu"), context), torch.tensor(ids))
        logits = wording.restrict(torch.zeros(1, nano.config.decoder.vocabulary), states)
        assert bool(logits[0, nano.config.eos_token].isfinite()) is may_end


def test_sentences_are_held_to_whole_words_and_lists_are_not(nano):
    config = nano.config
    prompts = [nano.processor.text_ids(prompt)[0] for prompt in ("caption", "answer", "detect")]
    wording = Wording(config, prompts)
    context = Saw(evidence=torch.full((1, CLASSES), 9.0), image=torch.tensor([0, 0, 0]))
    states = wording.begin(torch.device("cpu"), context)
    logits = torch.zeros(3, config.decoder.vocabulary)
    begins = wording.restrict(logits, states).isfinite()
    assert begins[1].nonzero().flatten().tolist() == [config.eos_token, *range(*config.first_words)]
    assert begins[0].nonzero().flatten().tolist() == [*range(*config.first_words)], "no sentence is empty"
    assert begins[2].all()
    later = wording.restrict(logits, wording.advance(states, torch.tensor([config.later_words[1] - 1] * 3))).isfinite()
    assert later[1].nonzero().flatten().tolist() == [config.eos_token, *range(*config.later_words)]
    assert later[2].all()


def test_a_class_is_credited_by_its_evidence_and_once(nano):
    """The first name of a class that is surely there gains, a doubtful one pays, a second name of either does not."""
    slope, constant = nano.config.sentences.presence
    wording = Wording(replace(nano.config, least_evidence=-4.0), nano.config.sentences.prompts[:1])
    evidence = torch.full((1, CLASSES), -constant / slope)  # as likely there as not
    evidence[0, COCO.index("person")], evidence[0, COCO.index("cat")] = 3.0, -4.0
    states = wording.begin(torch.device("cpu"), Saw(evidence=evidence, image=torch.tensor([0])))
    man, woman, cat = (nano.processor.text_ids(" " + word)[0] for word in ("man", "woman", "cat"))
    logits = torch.zeros(1, nano.config.decoder.vocabulary)
    begun = wording.advance(states, torch.tensor(nano.processor.text_ids("a")))
    before = wording.restrict(logits, begun)[0]
    assert before[man] == before[woman] > 0 > before[cat]
    after = wording.restrict(logits, wording.advance(begun, torch.tensor([man])))[0]
    assert after[woman] == 0 and after[cat] == before[cat]


def test_a_name_of_two_words_is_named_where_it_is_seen(nano):
    wording = Wording(replace(nano.config, least_evidence=-4.0), nano.config.sentences.prompts[:1])
    traffic, light = nano.processor.text_ids(" traffic light")
    begun = [*nano.processor.text_ids("a"), traffic]

    def worth(logit):
        evidence = torch.full((1, CLASSES), -9.0)
        evidence[0, COCO.index("traffic light")] = logit
        states = wording.begin(torch.device("cpu"), Saw(evidence=evidence, image=torch.tensor([0])))
        for token in begun:
            before, states = states, wording.advance(states, torch.tensor([token]))
        logits = torch.zeros(1, nano.config.decoder.vocabulary)
        assert wording.restrict(logits, before)[0, light] == 0, "a light of another kind"
        return wording.restrict(logits, states)[0, light]

    assert worth(-9.0) == -torch.inf and worth(-4.0) < 0 < worth(3.0)


def test_a_list_of_words_begins_no_name_of_two_words_that_it_may_not_finish(nano):
    cell, phone = nano.processor.text_ids(" cell phone")
    for logit, may in ((-9.0, False), (3.0, True)):
        evidence = torch.full((1, CLASSES), -9.0)
        evidence[0, COCO.index("cell phone")] = logit
        for prompt in ("describe en", "caption en"):
            wording = nano.processor.rows([prompt]).processor
            states = wording.begin(torch.device("cpu"), Saw(evidence=evidence, image=torch.tensor([0])))
            states = wording.advance(states, torch.tensor(nano.processor.text_ids("a")))
            logits = wording.restrict(torch.zeros(1, nano.config.decoder.vocabulary), states)
            assert bool(logits[0, cell].isfinite()) is (may or prompt == "caption en"), "beams pay for a dead end"


def test_one_beam_is_greedy_and_more_find_what_ranks_higher(nano, photos):
    from mmcli.engine.beams import beam_search
    from mmcli.engine.generate import generate

    seen = look(nano, [own[0] for own in photos])
    inputs = replace(nano.processor.rows(["caption en"] * len(photos)), context=seen)
    settings = {"stop_ids": nano.processor.stop_ids, "max_tokens": 40}
    greedy = complete(nano.model, inputs, **settings)
    single = beam_search(nano.model, inputs, beams=1, **settings)
    several = beam_search(nano.model, inputs, beams=BEAMS, **settings)
    assert [one.ids for one in single] == [one.ids for one in greedy]
    events = [event for step in generate(nano.model, inputs, **settings) for event in step]
    for row, one in enumerate(greedy):
        assert one.logprob == pytest.approx(sum(e.logprob for e in events if e.row == row), abs=1e-4)

    def rank(one):
        """What beams are compared by: the model's log-probabilities and the credit of each name, a token."""
        return one.logprob / len(one.ids)

    assert sum(map(rank, several)) >= sum(map(rank, greedy)) - 1e-4


def test_a_caption_does_not_depend_on_its_neighbours(nano, photos):
    """Rows that ended leave the batch, and their shared prefix with them."""
    together = answer(nano, photos, CaptionRequest())
    alone = [answer(nano, [own], CaptionRequest())[0] for own in photos]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert len({len(one.ids) for one in together}) > 1, "else none ends before another"


def test_beams_share_what_was_read_of_the_image(nano, photos):
    """The prefix is kept once an image, and what is written is what beams with copies of it write."""
    kept = []

    class Watched(KVCache):
        def keep(self, *rows, **more):
            super().keep(*rows, **more)
            kept.append((self.store.shape, None if self.shared is None else self.shared.shape))

    def beams(shareable):
        like, c = nano.model.decoder.embedding.weight, nano.config.decoder

        def new_cache(batch, length):
            size = (c.depth, batch, length, c.key_heads, c.head_width, like.dtype, like.device)
            return Watched(*size, shareable=shareable)

        nano.model.new_cache = new_cache
        try:
            inputs = replace(nano.processor.rows(["caption en"] * len(photos)), context=seen)
            settings = {"stop_ids": nano.processor.stop_ids, "max_tokens": 12, "beams": 3}
            return [(one.ids, one.logprob) for one in complete(nano.model, inputs, **settings)]
        finally:
            del nano.model.new_cache

    seen = look(nano, [own[0] for own in photos])
    shared = beams(True)
    assert kept[0][1][2] == len(photos) and kept[0][0][2] == 3 * len(photos)
    assert kept[0][0][4] < 12 and kept[0][1][4] >= nano.config.soft_tokens
    copied = beams(False)
    assert [ids for ids, _ in shared] == [ids for ids, _ in copied]
    assert [p for _, p in shared] == pytest.approx([p for _, p in copied], abs=1e-3)


def test_beams_are_for_the_family_s_own_captions_at_temperature_0(nano):
    assert CaptionRequest().beams_for(nano) == BEAMS > 1
    assert CaptionRequest(temperature=0.7).beams_for(nano) == 1
    assert CaptionRequest(prompt="describe en").beams_for(nano) == 1
    assert CaptionRequest(prompt="describe en", beams=2).beams_for(nano) == 2
    assert CaptionRequest(beams=1).beams_for(nano) == 1
    with pytest.raises(UsageError, match="--beams cannot be used with --temperature"):
        CaptionRequest(beams=3, temperature=0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"never_last": [9352]}, "never_last"),
        ({"same_word": [[1, "a"]]}, "same_word"),
        ({"phrases": [[5, 6, 80]]}, "phrases"),
        ({"presence": [1.0]}, "presence"),
        ({"grounding": -1}, "grounding"),
    ],
)
def test_rules_that_do_not_fit_are_refused(wrong, said):
    import json

    raw = json.loads((resolve("nano").folder / "config.json").read_text("utf-8"))
    with pytest.raises(ModelError, match=rf"sentences\.{said}"):
        NanoConfig.from_json(raw | {"sentences": raw["sentences"] | wrong})
