"""The published decoder of mask tokens, which lies apart from the models that need it."""

import hashlib
from functools import partial
from pathlib import Path

from mmcli.errors import ModelError, first_line, raise_if_interrupted
from mmcli.hub.known import MASK_DECODER

SPACE, FILE, SHA256 = MASK_DECODER


def fetch_vae_oid(cache_dir: Path | None = None) -> Path:
    """The path of `vae-oid.npz` (8 MB), from huggingface_hub's cache or downloaded into it; the checksum is verified.

    Raises ModelError where it can be had from neither, or where the file is another one.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    fetched = partial(hf_hub_download, SPACE, FILE, repo_type="space", cache_dir=cache_dir)
    try:
        try:
            path = Path(fetched(local_files_only=True))
        except LocalEntryNotFoundError:
            # Where the hub is out of reach this fails at once; the download would try again for half a minute.
            get_hf_file_metadata(hf_hub_url(SPACE, FILE, repo_type="space"))
            path = Path(fetched())
    except Exception as error:  # any error of the network, the hub or the disk ends the same way
        raise_if_interrupted(error)
        raise ModelError(
            f"The mask decoder {FILE} is not in the cache and cannot be downloaded ({first_line(error)})",
            f"Connect to the network, or save https://huggingface.co/spaces/{SPACE}/resolve/main/{FILE} "
            "elsewhere and name it with --mask-decoder PATH",
        ) from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ModelError(
            f"The mask decoder {path} is damaged or not the published one (its SHA-256 differs)",
            "Delete it and run again, or name another with --mask-decoder PATH",
        )
    return path
