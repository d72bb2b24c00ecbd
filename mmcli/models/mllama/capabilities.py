"""What Llama 3.2 Vision can do."""

from mmcli.models.family import Capabilities
from mmcli.models.mllama.config import MllamaConfig


def capabilities(config: MllamaConfig) -> Capabilities:
    """It answers with or without an image; checkpoints with a chat template converse, the others go on with a text."""
    return Capabilities(
        images=True,
        usual_images=1,
        rereads_for_images=True,
        reads_text=True,
        turns=True,
    )
