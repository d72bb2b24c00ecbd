"""The Gemma 3n family."""

from mmcli.models.family import Family
from mmcli.models.gemma3n.capabilities import capabilities
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.model import Gemma3n
from mmcli.models.gemma3n.processor import Gemma3nProcessor
from mmcli.models.gemma3n.stages import stages
from mmcli.models.gemma3n.teaching import Gemma3nTeaching
from mmcli.models.gemma3n.transcribe import transcribe, transcript_inputs
from mmcli.models.gemma3n.weights import rules

FAMILY = Family(
    name="Gemma 3n",
    read_config=Gemma3nConfig.from_hf,
    build=Gemma3n,
    rules=rules,
    processor=Gemma3nProcessor.open,
    stages=stages,
    capabilities=capabilities,
    transcript_inputs=transcript_inputs,
    transcribe=transcribe,
    teaching=Gemma3nTeaching(),
)

__all__ = ["FAMILY", "Gemma3n", "Gemma3nConfig", "Gemma3nProcessor"]
