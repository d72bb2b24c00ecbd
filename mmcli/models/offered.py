"""Known models that can be run here: those whose family is registered, by what they can do.

Help texts and error sentences name a model for what it can do; what that is, its family declares (`Capabilities`).
"""

from mmcli.hub.known_models import KNOWN, KnownModel
from mmcli.models.registry import FAMILIES


def offered(*wanted: str, bundled: bool | None = None) -> list[KnownModel]:
    """The known models that can do all that is wanted, bundled ones first."""
    fitting = [model for model in KNOWN if model.type in FAMILIES and model.can.issuperset(wanted)]
    return [model for model in fitting if bundled is None or model.bundled == bundled]


def able(*wanted: str, bundled: bool | None = None) -> list[str]:
    """The names of the known models that can do all that is wanted, bundled ones first."""
    return [model.name for model in offered(*wanted, bundled=bundled)]


def such_as(*wanted: str, bundled: bool | None = None) -> str:
    """The name of one known model that can do all that is wanted."""
    return able(*wanted, bundled=bundled)[0]


def any_of(*wanted: str) -> str:
    """Known models that can do what is wanted, one of each type, as a sentence names them: "a (bundled), b or c"."""
    first = {model.type: model for model in reversed(offered(*wanted))}.values()
    names = [f"{model.name} (bundled)" if model.bundled else model.name for model in reversed(first)]
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
