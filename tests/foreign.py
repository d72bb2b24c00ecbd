"""Import this before transformers: it keeps a torchaudio that does not fit this PyTorch out of its way."""

import sys

try:
    import torchaudio  # noqa: F401
except (ImportError, OSError, RuntimeError):  # a build for another CUDA; transformers would fall over it
    sys.modules["torchaudio"] = None
