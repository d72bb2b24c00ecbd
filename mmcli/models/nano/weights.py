"""What a nano checkpoint's tensors are called: as the model's own parameters."""

from mmcli.hub.weights import Rule
from mmcli.models.family import own_names
from mmcli.models.nano.config import NanoConfig

# Before masks were drawn by a head of their own, the decoder read these parts and was trained with them.
EARLIER = ("tower.masks.{}.{}", "tower.masks.{}.{}.{}", "judge.{}.{}")
REFUSED = (
    "is of an earlier nano, which drew masks in another way: this version cannot load it",
    "Train it again: mmcli tune DATA --model nano",
)


def rules(config: NanoConfig) -> list[Rule]:
    """The table for `mmcli.hub.weights.load_strict`."""
    return [*(Rule(name, None, refused=REFUSED) for name in EARLIER), *own_names(config)]
