"""The Llama 3.2 Vision family."""

from mmcli.models.family import Family
from mmcli.models.mllama.capabilities import capabilities
from mmcli.models.mllama.config import MllamaConfig
from mmcli.models.mllama.model import Mllama
from mmcli.models.mllama.processor import MllamaProcessor
from mmcli.models.mllama.stages import stages
from mmcli.models.mllama.weights import rules

FAMILY = Family(
    name="Llama 3.2 Vision",
    read_config=MllamaConfig.from_hf,
    build=Mllama,
    rules=rules,
    processor=MllamaProcessor.open,
    stages=stages,
    capabilities=capabilities,
)

__all__ = ["FAMILY", "Mllama", "MllamaConfig", "MllamaProcessor"]
