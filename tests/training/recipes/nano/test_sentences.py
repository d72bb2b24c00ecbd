"""What the training sentences say of sentences: words with which none ends, that may come again, that are one word."""

import json

from mmcli.hub.resolve import resolve
from mmcli.hub.tokenizer import read_tokenizer
from mmcli.models.nano.config import NanoConfig
from mmcli.training.recipes.nano.sentences import never_last, repeatable, rules_of, same_word, tokens_of

SENTENCES = [
    "a dog runs on a beach",
    "a white dog in the snow",
    "a cat on the sofa",
    "a cat sleeps on a white sofa",
] * 50


def test_words_that_end_no_sentence_are_found():
    never = never_last(SENTENCES)
    assert {"a", "the", "on", "in", "white", "dog", "cat", "sleeps", "runs"} == never


def test_a_word_that_ends_a_sentence_now_and_then_may_end_one():
    assert "dog" not in never_last([*SENTENCES, *["a white dog"] * 10])


def test_a_seldom_word_is_given_the_benefit_of_the_doubt():
    never = never_last([*SENTENCES, *["a cat is white"] * 3, "a purple cat on the sofa"])
    assert "on" in never and "purple" not in never


def test_words_that_people_repeat_may_be_repeated():
    assert repeatable(SENTENCES) == {"a"}


def test_forms_of_a_word_are_one_word():
    tokenizer = read_tokenizer(resolve("nano").folder)
    groups = same_word(tokenizer, ["window", "windows", "dog", "dogs", "bus"])
    assert tokens_of(tokenizer, ["window", "windows"]) in groups
    assert tokens_of(tokenizer, ["dog", "dogs"]) in groups
    assert not any(set(a) & set(b) for a in groups for b in groups if a is not b)


def test_the_rules_are_the_configuration_s_own():
    """Only whole words are among them, and config.json takes what the recipe writes."""
    folder = resolve("nano").folder
    config = NanoConfig.from_json(json.loads((folder / "config.json").read_text("utf-8")))
    rules = rules_of(read_tokenizer(folder), config, SENTENCES)
    begin, end = config.first_words[0], config.later_words[1]
    assert rules.prompts == config.sentences.prompts
    assert all(begin <= id < end for id in (*rules.never_last, *rules.repeatable, *sum(rules.same_word, ())))
    assert {config.eos_token} & set(rules.never_last) == set()
