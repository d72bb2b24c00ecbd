"""The decode loop with a real, small model: events, stops, sampling, and what a batch must not change."""

import pytest
import torch

from mmcli.engine.beams import beam_search
from mmcli.engine.generate import TokenEvent, generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.sampling import Sampling
from mmcli.errors import ModelError
from mmcli.layers.gemma import DecoderConfig
from mmcli.layers.prefix_lm import PrefixLM

VOCABULARY = 70
IMAGE = 64
SOFT = 4


class SmallModel(PrefixLM):
    """A prefix-LM whose "images" are projected by one layer."""

    def __init__(self):
        config = DecoderConfig(
            vocabulary=VOCABULARY, width=32, depth=3, mlp_width=64, heads=4, key_heads=2, head_width=8, query_scale=0.35
        )
        super().__init__(config, image_token=IMAGE)
        self.see = torch.nn.Linear(3, 32)

    def soft_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.see(pixels.flatten(2)[..., :SOFT].transpose(1, 2))


@pytest.fixture(scope="module")
def model() -> SmallModel:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = SmallModel().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    model.decoder.embedding.weight.mul_(0.3)
    return model


def batch(*rows: list[int]) -> Inputs:
    """Rows of token ids, each behind an image of its own (made from its first id, so that it is the row's)."""
    tokens, valid = pad_left([[IMAGE] * SOFT + row for row in rows], pad=0)
    images = tuple(torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(row[0])) for row in rows)
    return Inputs(tokens, valid, images)


ROWS = [[5, 9, 11, 2, 8, 7], [3], [8, 8, 30, 61]]


def run(model, inputs, steps=20, stop=frozenset(), **sampling) -> list[list[TokenEvent]]:
    return list(generate(model, inputs, stop_ids=stop, max_tokens=steps, sampling=Sampling(**sampling)))


def ids(steps: list[list[TokenEvent]], row: int) -> list[int]:
    return [event.id for step in steps for event in step if event.row == row]


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.5, "top_p": 0.9, "seed": 1}]
)
def test_a_batch_equals_its_singles(model, sampling):
    together = run(model, batch(*ROWS), **sampling)
    for row, tokens in enumerate(ROWS):
        alone = run(model, batch(tokens), **sampling)
        assert ids(together, row) == ids(alone, 0)
        logprobs = [event.logprob for step in together for event in step if event.row == row]
        assert logprobs == pytest.approx([step[0].logprob for step in alone], abs=1e-4)


def test_greedy_answers_equal_reading_everything_anew_at_each_step(model):
    """The prefix both ways, the answer causally: written out with one mask over the whole sequence, without a cache."""
    steps = run(model, batch(ROWS[0]), steps=12)
    inputs, written = batch(ROWS[0]), []
    prefix = inputs.tokens.shape[1]
    for step in steps:
        length = prefix + len(written)
        x = torch.cat((model.embed(inputs), model.decoder.embed(torch.tensor([written], dtype=torch.long))), dim=1)
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        mask[:prefix, :prefix] = True
        hidden = model.decoder(x, torch.arange(length)[None], mask[None, None])
        logits = model.decoder.logits(hidden[0, -1])[:IMAGE]
        assert step[0].id == logits.argmax()
        assert step[0].logprob == pytest.approx(logits.log_softmax(-1).max().item(), abs=1e-4)
        written.append(step[0].id)


def test_a_stop_token_is_a_rows_last_event_and_the_others_go_on(model):
    free = run(model, batch(*ROWS))
    stop = ids(free, 1)[0]
    steps = run(model, batch(*ROWS), stop=frozenset({stop}))
    for row in range(3):
        expected = ids(free, row)
        expected = expected[: expected.index(stop) + 1] if stop in expected else expected
        assert ids(steps, row) == expected
    assert len(ids(steps, 1)) == 1 < len(ids(steps, 0))


def test_it_ends_when_every_row_has_stopped(model):
    first = run(model, batch(ROWS[0]))[0][0].id
    assert len(run(model, batch(ROWS[0]), stop=frozenset({first}))) == 1


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_it_writes_at_most_the_limit(model, limit):
    assert len(run(model, batch(*ROWS), steps=limit)) == limit


def test_the_image_token_and_filler_are_never_written(model):
    steps = run(model, batch(*ROWS), steps=40, temperature=50.0, seed=0)  # so hot that all ids are about as likely
    written = {event.id for step in steps for event in step}
    assert max(written) < IMAGE and len(written) > 40


def test_a_seed_repeats_and_another_differs(model):
    def draw(seed):
        return ids(run(model, batch(ROWS[0]), temperature=3.0, seed=seed), 0)

    assert draw(1) == draw(1) != draw(2)


def test_without_a_seed_rows_and_runs_differ(model):
    steps = run(model, batch(ROWS[0], ROWS[0]), temperature=3.0)
    assert ids(steps, 0) != ids(steps, 1)
    assert ids(steps, 0) != ids(run(model, batch(ROWS[0]), temperature=3.0), 0)


def test_logprobs_are_of_the_models_own_distribution_whatever_the_sampling(model):
    greedy = run(model, batch(ROWS[0]), steps=1)[0][0]
    restricted = run(model, batch(ROWS[0]), steps=1, temperature=0.01, top_k=1, seed=0)[0][0]
    assert restricted == greedy


def test_numbers_out_of_range_are_an_error_that_names_the_way_out(model):
    broken = SmallModel()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.decoder.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="--dtype float32"):
        run(broken, batch(ROWS[0]))


def test_stopping_early_costs_no_further_steps(model):
    events = generate(model, batch(ROWS[0]), stop_ids=frozenset(), max_tokens=1000, sampling=Sampling())
    assert len(next(events)) == 1
    events.close()


class KeepingModel(SmallModel):
    """Keeps what its prefill returned, as a family does that asks it something else once the answer is written."""

    def prefill(self, inputs, cache):
        self.kept = super().prefill(inputs, cache)
        return self.kept


def forbid_the_best(logits, written, owners):
    """A rule that writes over what it is given."""
    return logits.scatter_(-1, logits.argmax(dim=-1, keepdim=True), -torch.inf)


@pytest.mark.parametrize("beams", [1, 3])
def test_rules_write_over_nothing_that_is_kept(model, beams):
    """Neither the logits that the model keeps, nor its inputs and weights, change while an answer is written."""
    keeping = KeepingModel().eval().requires_grad_(False)
    keeping.load_state_dict(model.state_dict())
    inputs = batch(*ROWS)
    expected = keeping.prefill(inputs, keeping.new_cache(3, inputs.tokens.shape[1])).clone()
    before = [tensor.clone() for tensor in (inputs.tokens, inputs.valid, *inputs.images, *keeping.parameters())]
    settings = {"stop_ids": frozenset(), "max_tokens": 5, "rules": forbid_the_best}
    if beams > 1:
        beam_search(keeping, inputs, beams=beams, **settings)
    else:
        list(generate(keeping, inputs, drop_ended=True, **settings))
    torch.testing.assert_close(keeping.kept, expected)
    after = (inputs.tokens, inputs.valid, *inputs.images, *keeping.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_row_with_a_limit_of_its_own_ends_there_and_the_others_stay(model):
    inputs, limits = batch(*ROWS), (3, 20, 7)
    free = run(model, inputs)
    for drop_ended in (False, True):
        steps = list(generate(model, inputs, stop_ids=frozenset(), max_tokens=20, limits=limits, drop_ended=drop_ended))
        for row, limit in enumerate(limits):
            assert ids(steps, row) == ids(free, row)[:limit]
