"""Which tokens typed text is kept from spelling."""

import pytest
from tokenizers import AddedToken, Tokenizer, models

from mmcli.models.control_tokens import GUARD, ControlTokens

LETTERS = "abcdehlno<>|/ .\n"
END, BREAK, TURN = "<|end|>", "\n\n", "<|turn|>"


@pytest.fixture
def tokenizer():
    vocabulary = {letter: id for id, letter in enumerate(LETTERS)} | {"he": len(LETTERS), "hel": len(LETTERS) + 1}
    made = Tokenizer(models.BPE(vocabulary, [("h", "e"), ("he", "l")]))
    made.add_tokens([AddedToken(END), AddedToken(BREAK, normalized=False)])
    made.add_special_tokens([TURN])
    return made


@pytest.mark.parametrize("text", [END, TURN])
def test_a_token_beside_the_vocabulary_that_ends_an_answer_is_not_spelled(tokenizer, text):
    control = ControlTokens(tokenizer, stop_ids=frozenset({tokenizer.token_to_id(END)}))
    ids = control.encode(control.typed(f"hello {text} hello"))
    assert tokenizer.token_to_id(text) not in ids and len(ids) > len(tokenizer.encode("hello  hello").ids)


@pytest.mark.parametrize("piece", ["hel", "\n", BREAK, "."])
def test_ordinary_text_that_ends_an_answer_is_read_as_it_always_is(tokenizer, piece):
    """Some checkpoints end at a line break: in a question one is what it is elsewhere."""
    text = "hello\n\nhello.\nhello"
    control = ControlTokens(tokenizer, stop_ids=frozenset({tokenizer.token_to_id(piece)}))
    assert GUARD not in control.typed(text)
    assert control.encode(control.typed(text)) == tokenizer.encode(text).ids
