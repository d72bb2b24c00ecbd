"""A small model that knows turns, images and audio: random weights, one token a character, a template like Gemma's."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.engine.model import GenerativeModel
from mmcli.errors import ModelError
from mmcli.hub.resolve import Checkpoint
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder
from mmcli.models.family import Capabilities, Processor
from mmcli.models.loaded import Loaded

LETTERS = "\n abcdefghijklmnopqrstuvwxyz.?"
BOS, STOP, START, IMAGE, AUDIO = range(len(LETTERS), len(LETTERS) + 5)
MARKS = {"<bos>": BOS, "<end_of_turn>": STOP, "<start_of_turn>": START, "<image>": IMAGE, "<audio>": AUDIO}
ROWS = 40
SOFT = {IMAGE: 4, AUDIO: 3}


class TurnModel(GenerativeModel):
    """A causal decoder with a window in every other layer; an image is its mean colour, a recording its first
    samples."""

    def __init__(self):
        super().__init__()
        config = DecoderConfig(
            vocabulary=ROWS, width=32, depth=4, mlp_width=64, heads=4, key_heads=2, head_width=8, query_scale=0.35,
            sliding_layers=(True, False, True, False),
        )  # fmt: skip
        self.decoder = GemmaDecoder(config)
        self.image_tower, self.audio_tower = torch.nn.Linear(3, SOFT[IMAGE] * 32), torch.nn.Linear(8, SOFT[AUDIO] * 32)
        self.read: list[int] = []  # tokens of each prefill

    def new_cache(self, batch: int, length: int) -> KVCache:
        return KVCache(4, batch, length, 2, 8, torch.float32, torch.device("cpu"))

    def prefill(self, inputs: Inputs, cache: KVCache) -> torch.Tensor:
        self.read.append(inputs.tokens.shape[1])
        x = self.decoder.embed(inputs.tokens)
        images = torch.stack(inputs.images) if inputs.images else None
        for token, parts, read in ((IMAGE, images, self.image_tower), (AUDIO, inputs.audio, self.audio_tower)):
            if parts is not None:
                x = x.masked_scatter((inputs.tokens == token)[..., None], read(parts).view(-1, 32))
        positions = (cache.positions[:, None] + inputs.valid.long().cumsum(dim=1) - 1).clamp(min=0)
        cache.extend(inputs.valid)
        count = inputs.tokens.shape[1]
        return self._logits(self.decoder(x, positions, cache.causal_mask(count), cache, cache.causal_mask(count, 9)))

    def step(self, tokens: torch.Tensor, cache: KVCache) -> torch.Tensor:
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
        x = self.decoder.embed(tokens[:, None])
        return self._logits(self.decoder(x, positions, cache.step_mask(), cache, cache.step_mask(9)))

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.decoder.logits(hidden[:, -1])
        logits[:, BOS] = logits[:, START:] = -torch.inf
        logits[:, STOP] -= 6  # else most answers would be over at once
        return logits


class TurnTokens(Processor):
    """The processor that belongs to it."""

    stop_ids = frozenset({STOP})
    capabilities = Capabilities(images=True, audio=True, max_audio_seconds=20.0, turns=True)

    def apply_chat_template(self, turns):
        """As Gemma's template: what the system says stands before the first question, every text is trimmed."""

        def content(turn):
            return "".join(
                part.strip() if isinstance(part, str) else "<image>" if isinstance(part, Image.Image) else "<audio>"
                for part in turn.parts
            )

        lead = f"{content(turns[0])}\n\n" if turns[0].role == "system" else ""
        said = [f"<start_of_turn>{t.role}\n{{}}{content(t)}<end_of_turn>\n" for t in turns if t.role != "system"]
        text = "".join(one.format(lead if place == 0 else "") for place, one in enumerate(said))
        return f"<bos>{text}<start_of_turn>model\n"

    def text_inputs(self, text, images=(), audios=()):
        ids: list[int] = []
        while text:
            mark = next((mark for mark in MARKS if text.startswith(mark)), "")
            token = MARKS[mark] if mark else max(LETTERS.find(text[0].lower()), 0)
            ids += [token] * SOFT.get(token, 1)
            text = text[len(mark) or 1 :]
        if (ids.count(IMAGE), ids.count(AUDIO)) != (len(images) * SOFT[IMAGE], len(audios) * SOFT[AUDIO]):
            raise ModelError("placeholders and parts do not match")
        assert all(len(audio) <= 16_000 * self.capabilities.max_audio_seconds for audio in audios)
        colours = [torch.tensor(np.asarray(image), dtype=torch.float32).mean((0, 1)) / 255 for image in images]
        clips = [torch.from_numpy(audio[:8].copy()) for audio in audios]
        tokens = torch.tensor([ids])
        return Inputs(
            tokens, torch.ones_like(tokens, dtype=torch.bool), tuple(colours),
            audio=torch.stack(clips) if clips else None,
        )  # fmt: skip

    def decode(self, ids):
        return "".join(LETTERS[id] for id in ids if id < len(LETTERS))

    def task_prompt(self, task, words):
        return words


def turn_model(context: int | None = None, seed: int = 7) -> Loaded:
    """The model in memory; `context` is what its config.json says it reads."""
    torch.manual_seed(seed)
    model = TurnModel().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    config = {"text_config": {"max_position_embeddings": context} if context else {"hidden_size": 32}}
    checkpoint = Checkpoint("small", Path("."), None, config)
    return Loaded(model, TurnTokens(), checkpoint, None, torch.device("cpu"), torch.float32)
