"""What nano declares to know."""

from functools import partial

from mmcli.models.family import ClosedVocabulary
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.questions import EXAMPLES
from mmcli.models.nano.words import known


def closed_vocabulary(config: NanoConfig) -> ClosedVocabulary:
    """The labels that the checkpoint's configuration names, and the kinds of question that training asked."""
    return ClosedVocabulary(
        labels=config.things,
        questions=EXAMPLES,
        languages=("en",),
        labels_per_prompt=1,
        known=partial(known, labels=config.things),
    )
