"""Layers that take the place of others."""

import pytest
import torch
from torch import nn

from mmcli.layers.replacing import replace_each


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_layer_is_replaced_and_none_is_kept(monkeypatch, at_once):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    owner = nn.Sequential(*(nn.Linear(2, width) for width in range(1, 8)))
    places = [(owner, name, child) for name, child in owner.named_children()]
    replace_each(places, lambda layer: nn.Linear(5, layer.out_features), at_once)
    assert places == [] and [tuple(layer.weight.shape) for layer in owner] == [(width, 5) for width in range(1, 8)]


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_goes_wrong_is_raised(monkeypatch, at_once):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)

    def fails(layer):
        raise MemoryError("no room")

    owner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(MemoryError, match="no room"):
        replace_each([(owner, "0", owner[0]), (owner, "1", owner[1])], fails, at_once)
