"""mmcli: images in, words, boxes and masks out.

    import mmcli

    model = mmcli.load("nano")
    print(model.caption("cat.jpg").text)

What is named here is imported when it is first asked for, so that `import mmcli` costs nothing (and no PyTorch).
"""

from mmcli.version import __version__ as __version__

TYPE_CHECKING = False  # as in typing, whose import would cost more than all of this
if TYPE_CHECKING:
    from mmcli.api import Chat as Chat
    from mmcli.api import Model as Model
    from mmcli.api import load as load
    from mmcli.errors import InputError as InputError
    from mmcli.errors import MmcliError as MmcliError
    from mmcli.errors import ModelError as ModelError
    from mmcli.errors import UsageError as UsageError
    from mmcli.output.schema import Object as Object
    from mmcli.output.schema import Record as Record
    from mmcli.rle import Mask as Mask
    from mmcli.types import Segment as Segment
    from mmcli.types import Word as Word

_PLACES = {
    "mmcli.api": ("Chat", "Model", "load"),
    "mmcli.errors": ("InputError", "MmcliError", "ModelError", "UsageError"),
    "mmcli.rle": ("Mask",),
    "mmcli.output.schema": ("Object", "Record"),
    "mmcli.types": ("Segment", "Word"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULES)]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'mmcli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
