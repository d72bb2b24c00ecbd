"""What goes into Florence-2 and what comes out: squeezed images, sentences that stand for tasks, quantised places."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmcli.decode.quantised import BINS, QuantisedGrammar
from mmcli.engine.inputs import Inputs
from mmcli.engine.search import Search, WritingRules
from mmcli.errors import UsageError
from mmcli.hub.image_settings import ImageSettings
from mmcli.hub.tokenizer import Tokenizer, read_tokenizer, stop_ids
from mmcli.models.family import Processor
from mmcli.models.florence2.capabilities import capabilities
from mmcli.models.florence2.config import Florence2Config
from mmcli.models.florence2.model import Prompts
from mmcli.models.florence2.prompts import COMMANDS, TASKS, UNNAMED, sentence_of, task_of
from mmcli.models.florence2.writing import read_search
from mmcli.models.prompts import fill_prompt

# What the vendor's processor puts behind BART's own tokens, in its order: its tokenizer.json lacks them.
_PAIRS = "cap ncap dcap grounding seg"
VENDOR_TOKENS = (
    "<od>", "</od>", "<ocr>", "</ocr>", *(f"<loc_{n}>" for n in range(BINS)),
    *(mark for name in _PAIRS.split() for mark in (f"<{name}>", f"</{name}>")), "<sep>", "<region_cap>",
    "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>", "<poly>",
    "</poly>", "<and>",
)  # fmt: skip


class Florence2Processor(Processor):
    """Prompt layout: the image's soft tokens, then bos, the sentence, eos; answers begin behind the start token."""

    grammar: QuantisedGrammar | None

    def __init__(
        self,
        config: Florence2Config,
        images: ImageSettings,
        tokenizer: Tokenizer,
        search: Search,
        stop_ids: frozenset[int],
    ):
        self.config = config
        self.images = images
        self.tokenizer = tokenizer
        self.search = search
        self.stop_ids = stop_ids
        self.image_size = images.side
        self.soft_tokens = config.vision.soft_tokens(images.side)
        self.grammar = _grammar(tokenizer)
        places = self.grammar is not None
        self.capabilities = replace(
            capabilities(config),
            beams=search.beams,
            objects=places,
            finds_all=places,
            masks=places,
            reads_regions=places,
        )
        text = config.text
        self.control_ids = stop_ids | {text.bos, text.eos, text.pad, config.image_token}

    @classmethod
    def open(cls, folder: Path, config: Florence2Config, raw: dict[str, Any]) -> "Florence2Processor":
        """Read tokenizer.json, the image settings and those of writing. Raises ModelError."""
        images = ImageSettings.open(folder, config.vision.soft_tokens)
        tokenizer = read_tokenizer(folder)
        if not config.native and tokenizer.token_to_id("<loc_0>") is None:
            tokenizer.add_special_tokens(VENDOR_TOKENS)
        search = read_search(folder, config, raw.get("text_config"))
        return cls(config, images, tokenizer, search, stop_ids(folder, frozenset({config.text.eos})))

    def inputs(self, images: Sequence[Sequence[Image.Image]], prompts: Sequence[str]) -> Inputs:
        """One row for each prompt. Raises UsageError unless every row has one image: Florence-2 was trained so."""
        if any(len(own) != 1 for own in images):
            raise UsageError("Florence-2 reads exactly one picture at a time", "Give one, or choose another --model")
        return self.rows([own[0] for own in images], range(len(prompts)), prompts)

    def rows(self, images: Sequence[Image.Image], about: Sequence[int], prompts: Sequence[str]) -> Inputs:
        """One row for each prompt, about the image of that number in `about`."""
        ids = [self._prompt_tokens(prompt) for prompt in prompts]
        width = max(len(row) for row in ids)
        tokens = torch.tensor([row + [self.config.text.pad] * (width - len(row)) for row in ids])
        valid = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in ids])
        start = self.config.text.start
        first = torch.full((len(ids), 1), start)
        return Inputs(
            first,
            torch.ones_like(first, dtype=torch.bool),
            tuple(torch.from_numpy(self.images.pixels(image)) for image in images),
            context=Prompts(tokens, valid, tuple(about)),
            processor=WritingRules(self.search, start, len(ids)),
            search=self.search,
        )

    def _prompt_tokens(self, prompt: str) -> list[int]:
        text = self.config.text
        ids = self.tokenizer.encode(sentence_of(prompt)).ids
        if self.config.image_token in ids:
            raise UsageError("A prompt cannot hold the picture's own token <image>", "Leave it out")
        room = text.positions - self.soft_tokens - 2
        if len(ids) > room:
            raise UsageError(f"The prompt has {len(ids)} tokens, and Florence-2 reads {room}", "Shorten it")
        self.tokenizer.check_rows(ids, text.vocabulary)
        return [text.bos, *ids, text.eos]

    def task_prompt(self, task: str, words: str) -> str:
        """Florence-2's sentence for a task. Objects are asked for one by one: a sentence on a line for each."""
        sentences = {name: TASKS[token].sentence for name, token in COMMANDS.items()}
        labels = [part for part in (part.strip() for part in words.split(";")) if part]
        return "\n".join(fill_prompt(sentences, task, label, "Florence-2") for label in labels or [""])

    def grammar_for(self, prompt: str) -> QuantisedGrammar | None:
        """The grammar of the answer to a prompt, which depends on its task."""
        if self.grammar is None:
            return None
        task = task_of(prompt)
        return replace(
            self.grammar, kind=task.kind, labelled=task.labelled, unnamed=UNNAMED if task.names else frozenset()
        )


def _grammar(tokenizer: Tokenizer) -> QuantisedGrammar | None:
    """Answers in the tokenizer's location tokens; None where it lacks some or scatters them."""
    first, last = tokenizer.token_to_id("<loc_0>"), tokenizer.token_to_id(f"<loc_{BINS - 1}>")
    separator, begin, end = (tokenizer.token_to_id(mark) for mark in ("<sep>", "<poly>", "</poly>"))
    if first is None or last != first + BINS - 1 or separator is None or begin is None or end is None:
        return None
    return QuantisedGrammar(first, separator, begin, end)
