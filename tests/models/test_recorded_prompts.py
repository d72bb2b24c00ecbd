"""Every family whose prompts are recorded: what is played back is what reading them as they are gives."""

import pytest
import torch
from cuda_only import needs_cuda
from every_family import FAMILIES, load_family
from support import random_image

from mmcli.engine import cuda_graph
from mmcli.tasks.caption import CaptionRequest

needs_cuda()


@pytest.mark.parametrize("switch", ["1", "steps"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("whisper", "nano")])
def test_prompts_played_back_are_read_as_they_are(name, switch, tmp_path, monkeypatch):
    loaded = load_family(tmp_path, name, "cuda")
    monkeypatch.setenv(cuda_graph.SWITCH, switch)
    with torch.inference_mode():
        check(loaded, switch)


def check(loaded, switch):
    model, like = loaded.model, loaded.model.like
    cache = None
    for number in range(5):
        images = [random_image(2 * number + row, 50, 37) for row in range(2)]
        prompt = CaptionRequest().prompt_for(loaded.processor)
        own = loaded.processor.inputs([[image] for image in images], [prompt] * 2).to(like.device, like.dtype)
        length = own.tokens.shape[1] + 8
        cache, fresh = cache or model.new_cache(2, length), model.new_cache(2, length)
        cache.truncate(0)
        logits = cuda_graph.prefill(model, own, cache).clone()
        torch.testing.assert_close(logits, model.prefill(own, fresh), rtol=1e-4, atol=1e-4)
        tokens = logits.argmax(dim=-1)
        torch.testing.assert_close(model.step(tokens, cache), model.step(tokens, fresh), rtol=1e-4, atol=1e-4)
    assert sum(map(bool, cache.prefills.values())) == (model.prefill_records and switch == "1")
