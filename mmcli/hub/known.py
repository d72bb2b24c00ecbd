"""Names by which models are known, and where on the hub they and their parts are."""

from mmcli.hub.known_models import BY_NAME, KNOWN, KnownModel

IMAGE_MODEL = next(model.name for model in KNOWN if model.bundled and "images" in model.can)  # without --model
AUDIO_MODEL = next(model.name for model in KNOWN if model.bundled and "transcribes" in model.can)

# Short names of models on the hub.
SHORT_NAMES = {name: model.repository for name, model in BY_NAME.items() if model.repository}

# The published decoder of mask tokens, which lies apart from the models that need it: a Space of the hub, a file in it
# and that file's SHA-256.
MASK_DECODER = (
    "big-vision/paligemma-hf",
    "vae-oid.npz",
    "5586010257b8536dddefab65e7755077f21d5672d5674dacf911f73ae95a4447",
)


def known_as(name: str) -> KnownModel | None:
    """The known model of a short name, or of a repository; None for any other."""
    return BY_NAME.get(name) or next((model for model in KNOWN if name and model.repository == name), None)
