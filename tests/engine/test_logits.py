"""Constrained decoding: whatever a model's logits are, what is written parses and names only what was asked for."""

import pytest
import torch
from written_model import WrittenModel, noise

from mmcli.decode import Vocabulary
from mmcli.decode.grammar import Grammar, automaton
from mmcli.decode.segments import parse
from mmcli.engine.beams import beam_search
from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs
from mmcli.engine.logits import GrammarProcessor
from mmcli.engine.sampling import Sampling
from mmcli.types import Token

END, SPACE = 0, 1
WORDS = {2: " cat", 3: " dog", 4: " hot", 5: " ;", 6: " food"}
VOCABULARY = Vocabulary(loc_start=8, seg_start=8 + 1024)
SIZE = 8 + 1024 + 128 + 4
CAT, HOT_DOG, CAT_FOOD = (2,), (4, 3), (2, 6)


def text(ids):
    def one(token):
        place, code = VOCABULARY.location(token), VOCABULARY.mask_code(token)
        return f"<loc{place:04}>" if place is not None else f"<seg{code:03}>" if code is not None else WORDS[token]

    return "".join(map(one, ids))


class Noise(WrittenModel):
    """Logits that have nothing to do with anything, some of them large; a function of the tokens written so far."""

    def __init__(self, seed):
        super().__init__()
        self.seed = torch.nn.Parameter(torch.tensor(float(seed)), requires_grad=False)

    def logits_behind(self, written):
        logits = torch.stack([noise(self.seed, row, SIZE) * 4 for row in written.tolist()])
        logits[:, [END, 5]] += 4  # so that answers end, and go on, now and then
        return logits


def grammar(*labels, **more):
    return Grammar(labels, (5,), END, **more)


GRAMMARS = [grammar(CAT, most=3), grammar(CAT, HOT_DOG, CAT_FOOD, masks=True, most=2), grammar(HOT_DOG, most=1)]
ASKED = [{"cat"}, {"cat", "hot dog", "cat food"}, {"hot dog"}]
MODES = {
    "greedy": {},
    "sampling": {"sampling": Sampling(temperature=2.0, seed=3)},
    "top-k": {"sampling": Sampling(temperature=1.0, top_k=1)},
    "dropped rows": {"drop_ended": True},
}


def written(seed, mode, grammars=GRAMMARS, steps=80):
    inputs = Inputs(torch.full((len(grammars), 1), SPACE), torch.ones(len(grammars), 1, dtype=torch.bool))
    rules = GrammarProcessor([automaton(own, VOCABULARY) for own in grammars], SIZE, torch.device("cpu"))
    if mode == "beams":
        answers = beam_search(
            Noise(seed), inputs, stop_ids=frozenset({END}), max_tokens=steps, beams=3, processor=rules
        )
        assert all(answer.ended for answer in answers)
        return [[Token(id, -1.0) for id in answer.ids] for answer in answers]
    rows = [[] for _ in grammars]
    steps = generate(Noise(seed), inputs, stop_ids=frozenset({END}), max_tokens=steps, processor=rules, **MODES[mode])
    for events in steps:
        for event in events:
            rows[event.row].append(Token(event.id, event.logprob))
    assert all(row[-1].id == END for row in rows)
    return [row[:-1] for row in rows]


@pytest.mark.parametrize("mode", [*MODES, "beams"])
@pytest.mark.parametrize("seed", range(6))
def test_any_logits_give_an_answer_that_parses(seed, mode):
    for row, (own, asked, rules) in enumerate(zip(written(seed, mode), ASKED, GRAMMARS, strict=True)):
        parsed = parse(own, VOCABULARY, text, masks=rules.masks)
        problems = [problem for problem in parsed.problems if "is repeated at the same place" not in problem]
        assert problems == [], (row, parsed.text)
        assert {found.label for found in parsed.objects} <= asked
        assert all((found.seg is not None) == rules.masks for found in parsed.objects)
        assert len(parsed.objects) <= rules.most


def test_the_answers_are_not_all_empty():
    """The property above says little of a model that always ends at once, or after one object."""
    counts = [len(row) for seed in range(6) for row in written(seed, "sampling")]
    assert min(counts) < 7 and max(counts) > 40


@pytest.mark.parametrize("mode", ["greedy", "dropped rows"])
def test_a_row_writes_the_same_whatever_its_neighbours_grammars_are(mode):
    together = written(1, mode)
    for i, own in enumerate(GRAMMARS):
        assert written(1, mode, [own]) == [together[i]]


def test_what_is_forbidden_does_not_change_log_probabilities():
    """A score tells what the model thought of its token, not that nothing else was allowed."""
    [[first, *_]] = written(5, "greedy", [grammar(CAT, box=(1, 2, 3, 4))], steps=5)
    logits = Noise(5).prefill(
        Inputs(torch.full((1, 1), SPACE), torch.ones(1, 1, dtype=torch.bool)), Noise(5).new_cache(1, 1)
    )
    assert first.id == VOCABULARY.loc_start + 1
    assert first.logprob == pytest.approx(logits.log_softmax(-1)[0, first.id].item(), abs=1e-5)


def test_a_given_box_is_written_as_it_is_and_gets_its_codes():
    [own] = written(2, "greedy", [grammar(box=(7, 0, 1023, 2), masks=True)])
    [found] = parse(own, VOCABULARY, text, masks=True).objects
    assert found.loc == (7, 0, 1023, 2) and len(found.seg) == 16 and len(own) == 20


@pytest.mark.parametrize("wrong", [{"labels": ((),)}, {"labels": (), "box": (5, 5, 5, 9)}])
def test_a_grammar_that_allows_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="must have tokens|is empty"):
        automaton(Grammar(separator=(5,), end=END, **wrong), VOCABULARY)
