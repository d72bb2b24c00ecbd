"""Names of nano's tensors: the checkpoint is ours, so they are the model's own."""

from mmcli.hub.weights import Rule
from mmcli.models.nano.config import NanoConfig

DEEPEST = 8  # dotted parts of the longest name


def rules(config: NanoConfig) -> list[Rule]:
    """Every tensor keeps its name; loading is strict all the same."""
    paths = (".".join(["{}"] * parts) for parts in range(2, DEEPEST + 1))
    return [Rule(path, path) for path in paths]
