"""The choice of tokens, against the distributions it should follow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcli.engine.sampling import Sampler, Sampling, likeliest, sample
from mmcli.errors import UsageError

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def shares(sampling: Sampling, draws: int = 4000) -> list[float]:
    """How often each token is chosen when the draws cover [0, 1) evenly."""
    even = (torch.arange(draws) + 0.5) / draws
    chosen = sample(LOGITS.expand(draws, -1), sampling, even)
    return (chosen.bincount(minlength=4) / draws).tolist()


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(temperature=1), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(temperature=1, top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(temperature=1, top_k=99), [0.5, 0.3, 0.15, 0.05]),  # more than there are
        (Sampling(temperature=1, top_p=0.5), [1, 0, 0, 0]),  # the first alone reaches p
        (Sampling(temperature=1, top_p=0.51), [0.625, 0.375, 0, 0]),
        (Sampling(temperature=1, top_p=1e-6), [1, 0, 0, 0]),  # never empty
        (Sampling(temperature=1, top_k=3, top_p=0.82), [0.625, 0.375, 0, 0]),  # p is of what top-k left: .526 + .316
        (Sampling(temperature=0.5), [0.6849, 0.2466, 0.0616, 0.0068]),  # squares, normed
    ],
)
def test_shares_follow_the_restricted_distribution(sampling, expected):
    assert shares(sampling) == pytest.approx(expected, abs=2e-3)


@given(st.integers(1, 40), st.floats(0.05, 5), st.integers(0, 50), st.floats(0.01, 1), st.integers(0, 2**32))
def test_forbidden_tokens_are_never_drawn_even_at_the_ends_of_the_range(size, temperature, top_k, top_p, seed):
    logits = torch.randn(2, size, generator=torch.Generator().manual_seed(seed))
    logits[:, 1::2] = -torch.inf
    chosen = sample(logits, Sampling(temperature, top_k, top_p), torch.tensor([0.0, 1 - 2**-24]))
    assert (chosen % 2 == 0).all() and (chosen < size).all()


def test_a_seeded_rows_choice_does_not_depend_on_its_neighbours():
    settings = Sampling(temperature=1, seed=7)
    wide = Sampler(settings, rows=5, steps=9, device=torch.device("cpu"))
    narrow = Sampler(settings, rows=1, steps=9, device=torch.device("cpu"))
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    for step in range(9):
        assert wide.choose(logits, step)[3] == narrow.choose(logits[3:4], step)[0]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_settings_without_a_meaning_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        Sampling(**wrong)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-20, 1e-7, 1e-6])
def test_hardly_any_temperature_is_none(temperature):
    """Divided by it, logits would be infinite, and what is drawn from them no token."""
    logits = torch.tensor([[1.0, 9000.0, -8000.0, 8999.0], [-3.0, -1.0, -2.0, -torch.inf]])
    chosen = Sampler(Sampling(temperature, seed=0), 2, 3, torch.device("cpu"))
    assert [chosen.choose(logits, step).tolist() for step in range(3)] == [[1, 1]] * 3


@pytest.mark.parametrize("size", [50, 8192, 9000, 51865])
def test_the_first_of_the_largest_is_the_likeliest_in_blocks_or_not(size):
    torch.manual_seed(size)
    logits = torch.randn(40, size).round_()  # many are equally large
    logits[0], logits[1] = -torch.inf, torch.arange(size)
    logits[2:20, -300:] = 9.0
    assert torch.equal(likeliest(logits), logits.argmax(dim=-1))
    assert torch.equal(likeliest(logits[:, : size - 7]), logits[:, : size - 7].argmax(dim=-1))  # not contiguous
