"""What Florence-2 is asked: fourteen tasks, each with a sentence of its own.

A task is named by a token (`<OD>`); the model itself reads the sentence that stands for it (transformers
`models/florence2/processing_florence2.py`, and the vendor's own processor).
"""

from dataclasses import dataclass

from mmcli.decode.quantised import Kind
from mmcli.errors import UsageError


@dataclass(frozen=True)
class Task:
    """One task: its sentence, with `{}` where it takes words or a region, and how its answer places objects."""

    sentence: str
    kind: Kind = "boxes or polygons"
    labelled: bool = True
    names: bool = False  # answers with phrases of the prompt, of which some name nothing

    @property
    def takes_words(self) -> bool:
        return "{}" in self.sentence

    def asks(self, prompt: str) -> bool:
        """Whether a prompt is this task's sentence."""
        first, _, last = self.sentence.partition("{}")
        if not self.takes_words:
            return prompt == first
        return prompt.startswith(first) and prompt.endswith(last) and len(prompt) >= len(first) + len(last)


TASKS = {
    "<OCR>": Task("What is the text in the image?"),
    "<OCR_WITH_REGION>": Task("What is the text in the image, with regions?", "quads"),
    "<CAPTION>": Task("What does the image describe?"),
    "<DETAILED_CAPTION>": Task("Describe in detail what is shown in the image."),
    "<MORE_DETAILED_CAPTION>": Task("Describe with a paragraph what is shown in the image."),
    "<OD>": Task("Locate the objects with category name in the image.", "boxes"),
    "<DENSE_REGION_CAPTION>": Task("Locate the objects in the image, with their descriptions.", "boxes"),
    "<REGION_PROPOSAL>": Task("Locate the region proposals in the image.", "boxes", labelled=False),
    "<CAPTION_TO_PHRASE_GROUNDING>": Task("Locate the phrases in the caption: {}", "boxes", names=True),
    "<REFERRING_EXPRESSION_SEGMENTATION>": Task("Locate {} in the image with mask", "polygons", labelled=False),
    "<REGION_TO_SEGMENTATION>": Task("What is the polygon mask of region {}", "polygons", labelled=False),
    "<OPEN_VOCABULARY_DETECTION>": Task("Locate {} in the image."),
    "<REGION_TO_CATEGORY>": Task("What is the region {}?"),
    "<REGION_TO_DESCRIPTION>": Task("What does the region {} describe?"),
    "<REGION_TO_OCR>": Task("What text is in the region {}?"),
}

# The commands, and the manners in which they are asked for.
COMMANDS = {
    "caption": "<CAPTION>", "caption:low": "<CAPTION>", "caption:medium": "<DETAILED_CAPTION>",
    "caption:high": "<MORE_DETAILED_CAPTION>", "detect": "<OPEN_VOCABULARY_DETECTION>", "detect:all": "<OD>",
    "segment": "<REFERRING_EXPRESSION_SEGMENTATION>", "read": "<OCR>", "read:boxes": "<OCR_WITH_REGION>",
}  # fmt: skip

# Phrases of a caption that name nothing, as the vendor's processor leaves them out of what it grounds.
_WORDS = (
    "it|I|me|mine|you|your|yours|he|him|his|she|her|hers|they|them|their|theirs|one|oneself|we|us|our|ours|its|"
    "myself|yourself|himself|herself|itself|ourselves|yourselves|themselves|this|that|these|those|who|whom|whose|"
    "which|what|all|another|any|anybody|anyone|anything|each|everybody|everyone|everything|few|many|nobody|none|"
    "several|some|somebody|someone|something|each other|one another|the image|image|images|the|a|an|a group|"
    "other objects|lots|a set"
)
UNNAMED = frozenset(_WORDS.split("|"))


def sentence_of(prompt: str) -> str:
    """What the model reads for a prompt: a task's token, with the words behind it, becomes its sentence.

    Raises UsageError for words with a task that takes none, and for none with one that takes some.
    """
    for token, task in TASKS.items():
        if token not in prompt:
            continue
        words = prompt.replace(token, "").strip()
        if not task.takes_words and prompt != token:
            raise UsageError(f"Nothing can stand beside {token} in a prompt", f"Ask {token} alone")
        return task.sentence.replace("{}", words)
    return prompt


def task_of(prompt: str) -> Task:
    """The task that a prompt asks for; one that only means what it says for any other."""
    sentence = sentence_of(prompt)
    return next((task for task in TASKS.values() if task.asks(sentence)), Task(""))
