"""Whether the names of a reference's tensors lead to all of ours, and with the same shapes."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from mmcli.hub.weights import Rule, place
from mmcli.models.family import Family
from mmcli.models.load import build_empty
from mmcli.models.stages import Stage


def assert_places(
    rules: list[Rule], ours: nn.Module, reference: nn.Module, spellings: Callable[[str], Iterable[str]]
) -> None:
    """Every tensor of the reference has a place, by each name that files may give it, and every place is taken."""
    wanted, placed = ours.state_dict(), set()
    for name, tensor in reference.state_dict().items():
        for spelling in spellings(name):
            rule, target = place(rules, spelling)
            assert rule is not None, f"no place for {spelling}"
            if target is None:
                assert rule.copy_of == "decoder.embedding.weight"
                target = rule.copy_of
            assert wanted[target].shape == tensor.shape, spelling
            placed.add(target)
    assert placed == set(wanted)


def stages_of(family: Family, config: Any) -> list[Stage]:
    """What `inspect` shows of a model of this configuration."""
    return family.stages(config, build_empty(family, config))
