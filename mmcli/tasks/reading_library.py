"""Whether the library that reads text without a model is there; it is used in `tasks/reader.py`."""

from mmcli.errors import ModelError
from mmcli.models.offered import any_of

LIBRARY = "rapidocr"
INSTALL = "pip install 'mmcli[read]'"


def is_installed() -> bool:
    """Whether the extra is there: the library, and what runs its weights."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in (LIBRARY, "onnxruntime"))


def require_installed(bundled: str) -> None:
    """Raise ModelError where the extra is missing; `bundled` is the model that is used for other tasks."""
    if not is_installed():
        do = f"Install the library that does, with {INSTALL}, or name a model that reads: {any_of('reads_text')}"
        raise ModelError(f"The bundled {bundled} cannot read", do)
