"""How sure Whisper is of a text: the mean log-probability of its tokens, the end among them."""

from dataclasses import replace

import pytest
import torch
from whisper_folders import audio

from mmcli.engine.inputs import Inputs
from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.transcribe import DecodingOptions, transcribe_windows

GREEDY = DecodingOptions(temperatures=(0.0,), language="en", no_speech_limit=None, logprob_limit=None)


def read_anew(whisper, window, ids) -> float:
    """The sum of the log-probabilities of `ids`, read without a cache, one place after the other."""
    model, processor = whisper.model, whisper.processor
    prompt = processor.prompt("transcribe", "en", None, True)
    rules = WritingRules(processor.special, True, seconds=[len(window) / processor.rate])
    total = 0.0
    with torch.inference_mode():
        for place, id in enumerate(ids):
            encoded = model.encode(processor.features([window]))
            tokens = torch.tensor([prompt + ids[:place]])
            inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), context=encoded)
            logits = model.prefill(inputs, model.new_cache(1, tokens.shape[1]))
            total += rules(logits.clone(), [ids[:place]]).log_softmax(dim=-1)[0, id].item()
    return total


@pytest.mark.parametrize("beams", [1, 2])
def test_the_end_counts_as_a_token_and_has_its_own_probability(whisper, beams):
    """As in openai/whisper: `sum_logprobs / (len(tokens) + 1)`, where the sum holds that of <|endoftext|>."""
    options, ended = replace(GREEDY, beams=beams, max_tokens=12), set()
    for seed, seconds in ((0, 1.3), (1, 0.4), (4, 0.05)):
        window = audio(seed, seconds)
        text = transcribe_windows(whisper, [window], options)[0]
        ids = list(text.token_ids)
        end = [] if text.truncated else [whisper.processor.special.end]
        ended.add(not text.truncated)
        assert text.logprob == pytest.approx(read_anew(whisper, window, ids + end) / (len(ids) + 1), abs=1e-4)
    assert True in ended, "none of the texts came to its end"
