"""Rows of text that join a batch of Gemma 3n, whose layers share keys and look through windows, write what they write
alone; its tower is too large to be run here."""

import pytest
import torch

from mmcli.engine.collect import complete
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.scheduler import write_continuously
from mmcli.models.gemma3n.config import Gemma3nConfig, LayerConfig, TextConfig
from mmcli.models.gemma3n.model import Gemma3n

KINDS = ((True, 80, 0.5, 0), (False, 96, 0.0, 1), (True, 72, 0.3, 0), (False, 80, 0.0, 1))
LAYERS = tuple(LayerConfig(sliding, width, sparsity, source) for sliding, width, sparsity, source in KINDS)
TEXT = TextConfig(
    vocabulary=60, width=48, layers=LAYERS, heads=4, key_heads=2, head_width=16, window=5, rope_base=1e6,
    sliding_rope_base=1e4, norm_epsilon=1e-5, logit_softcap=30.0, table_rows=50, table_width=6, streams=4,
    corrects_scale=True, laurel_rank=5, positions=1000,
)  # fmt: skip
ROWS = [[5, 9, 11, 2, 8, 7, 30, 31], [3], [8, 8, 30, 41, 2], [40, 1], [7] * 12, [1, 2, 3], [33]]


@torch.inference_mode()
def test_rows_that_join_write_what_they_write_alone():
    torch.manual_seed(1)
    model = Gemma3n(Gemma3nConfig(TEXT, None, None, 0, 1, frozenset())).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        spread = 0.3 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn_like(parameter) * spread + ("norm" in name or name.endswith("altup.scale")))
    waiting = [Inputs(*pad_left([row], pad=0)) for row in ROWS]
    settings = {"stop_ids": frozenset(range(12)), "max_tokens": 9}
    expected = [complete(model, row, **settings)[0] for row in waiting]
    assert len({len(one.ids) for one in expected}) > 2

    def take(count, wait):
        return [waiting.pop(0) for _ in range(min(count, len(waiting)))] or None

    found = dict(write_continuously(model, take, places=3, **settings))
    for number, one in enumerate(expected):
        assert found[number].ids == one.ids and found[number].logprobs == pytest.approx(one.logprobs, abs=1e-4)
