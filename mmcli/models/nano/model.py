"""The bundled model: a tower, a small Gemma decoder, and PaliGemma's language."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmcli.decode import MASK_CODES
from mmcli.engine.device import bfloat16_pays, int8_pays
from mmcli.engine.inputs import Inputs
from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import prefix_positions
from mmcli.layers.fusing import Fusable
from mmcli.layers.int8 import Quantisable, ReadInInt8, in_int8, quantize_weight, read_in_int8
from mmcli.layers.int8_step import StepInt8Linear, StepInt8Table, step_packing_works
from mmcli.layers.packed import pack
from mmcli.layers.prefix_lm import PrefixLM
from mmcli.models.nano.config import CLASSES, NanoConfig
from mmcli.models.nano.mask_planes import MaskPlanes
from mmcli.models.nano.proposal_classifier import ProposalClassifier
from mmcli.models.nano.tower import NanoTower
from mmcli.models.nano.writing import Writing, box_of

# Images that a GPU reads at a time, blank ones among them: always as many. Libraries choose their kernels, and with
# them the order of their sums, by the size of a batch, so that an image would be read a little differently alone than
# among others, and thresholds would decide otherwise.
AT_ONCE = 16


@dataclass(frozen=True)
class Seen:
    """What nano makes of images before anything is asked: any number of questions can be asked about it."""

    store: Tensor  # [layers, 2, P, K, S, H] keys and values of the soft tokens of P images
    planes: MaskPlanes  # from which masks are cut
    raw: list[Tensor]  # the detector's outputs for each stride [P, 80 + 32, h, w], as `picodet.PicoDet` gives them
    boxes: Tensor  # [P, N, 4] what the detector proposes, as (x0, y0, x1, y1) in 0..1
    logits: Tensor  # [P, N, 80] as what the detector takes them
    classified: Tensor  # [P, N, 80] as what nano takes them, having read the whole image
    there: Tensor  # [P, 80] which classes nano thinks are in the image at all; logits like the others
    image: Tensor | None = None  # [B] which image each row of a batch is about; None: row i is about image i
    outlined: Tensor | None = None  # [B, 4] boxes in 0..1 whose masks the rows write; None: their own, as they come

    def about(self, images: list[int], boxes: list[tuple[int, ...]] | None = None) -> "Seen":
        """The same for rows that are about these images, and write masks of nothing but these boxes (y0, x0, y1, x1 in
        locations)."""
        device = self.store.device
        outlined = None if boxes is None else box_of(torch.tensor(boxes, device=device))
        return replace(self, image=torch.tensor(images, device=device), outlined=outlined)

    def first(self, count: int) -> "Seen":
        """The same of the first images alone."""
        names = ("boxes", "logits", "classified", "there")
        fewer = {name: getattr(self, name)[:count] for name in names}
        raw, planes = [stride[:count] for stride in self.raw], self.planes.first(count)
        return replace(self, store=self.store[:, :, :count], raw=raw, planes=planes, **fewer)

    @classmethod
    def joined(cls, parts: "list[Seen]", store: Tensor, pixels: Tensor) -> "Seen":
        """What was made of some images and of further ones, as of all of them; their stores are parts of `store`."""
        if len(parts) == 1:
            return parts[0]
        names = ("boxes", "logits", "classified", "there")
        whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        raw = [torch.cat(strides) for strides in zip(*(part.raw for part in parts), strict=True)]
        planes = MaskPlanes.joined([part.planes for part in parts], pixels)
        return cls(store=store, planes=planes, raw=raw, **whole)


class Nano(Quantisable, PrefixLM, Fusable):
    """Prefix language model over soft tokens.

    Soft tokens look only at each other; the prompt looks at them and at itself in both directions. So what the
    decoder makes of an image does not depend on the question: several are asked after one `look`, and training packs
    several questions to an image. In `Inputs` a row is its soft tokens, padding, and the prompt; `Inputs.context` may
    be what `look` gave.
    """

    # `Writing` keeps tokens by the places in which a whole batch wrote them.
    rows_join = prefill_records = False

    def __init__(self, config: NanoConfig):
        super().__init__(config.decoder, config.image_token)
        self.config = config
        self.tower = NanoTower(config)
        self.classifier = ProposalClassifier(config)
        # The type in which keys and values of soft tokens are kept once for all rows; None: each row has a copy.
        self.prefix_in: torch.dtype | None = None
        self.register_buffer("class_ids", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("class_share", torch.empty(0), persistent=False)
        if not self.class_ids.is_meta:
            self.reset_buffers(self.class_ids.device)

    def reset_buffers(self, device: torch.device) -> None:
        """Token ids of the detector's classes [80, longest] with the share of each in the class's name."""
        ids = [torch.tensor(row, device=device) for row in self.config.class_tokens]
        share = [torch.full((len(row),), 1 / len(row), device=device) for row in ids]
        self.class_ids = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        self.class_share = nn.utils.rnn.pad_sequence(share, batch_first=True)

    def fuse(self) -> None:
        """On a CPU weights are put in oneDNN's order: what is made of an image has the same digits in any batch."""
        if self.decoder.norm.weight.device.type == "cpu":
            pack(self.decoder)
            pack(self.classifier)

    def expect_int8(self) -> None:
        if int8_pays() and step_packing_works():
            decoder: Any = self.decoder
            decoder.embedding = ReadInInt8(decoder.embedding)
            read_in_int8(decoder.layers)

    def quantise(self) -> bool:
        """Choose faster arithmetic for the CPU; answers stay as good.

        The decoder's products in int8, as its weights are stored, where the CPU has them; the feature tower, and what
        soft tokens see of each other, in bfloat16 where it has that. With the detector in bfloat16, too, average
        precision fell by 0.001 to 0.004, for a tenth of the time.
        """
        decoder: Any = self.decoder
        if bfloat16_pays():
            self.tower.convolve_in = torch.bfloat16
            for layer in decoder.layers:
                layer.attention.short = torch.bfloat16
        if not (int8_pays() and step_packing_works()):
            return False
        table = decoder.embedding
        integers = (table.whole, table.scale) if isinstance(table, ReadInInt8) else quantize_weight(table.weight)
        decoder.embedding = StepInt8Table(*integers)
        in_int8(decoder.layers, StepInt8Linear)
        for part in decoder.layers.modules():
            if isinstance(part, StepInt8Linear):
                part.expect_many()  # soft tokens
        # oneDNN sums bfloat16 in one order whatever shares a product; of float32 that does not hold (MKL).
        self.prefix_in = torch.bfloat16 if bfloat16_pays() else None
        return True

    def class_words(self) -> Tensor:
        """The decoder's embeddings of the detector's classes [80, D], scaled as it reads them; means over words."""
        vectors = self.decoder.embedding(self.class_ids)
        words = (vectors * self.class_share[..., None].to(vectors.dtype)).sum(1)
        return words * self.config.decoder.width**0.5

    def asked_words(self, text: Tensor) -> Tensor:
        """What prompts [B, T] ask for: the mean of their tokens' embeddings [B, D], from <bos> on."""
        there = (text == self.config.bos_token).cumsum(1).clamp(max=1)[..., None]
        vectors = self.decoder.embed(text)
        return (vectors * there).sum(1) / there.sum(1).clamp(min=1)

    def new_cache(self, batch: int, length: int) -> KVCache:
        """As `PrefixLM.new_cache`; where soft tokens are kept in a type of their own, rows lean on them."""
        if self.prefix_in is None or length < self.config.soft_tokens:
            return super().new_cache(batch, length)
        c, like = self.config.decoder, self.decoder.norm.weight
        sizes = c.depth, batch, length, c.key_heads, c.head_width
        return KVCache(*sizes, like.dtype, like.device, shareable=True, ahead=self.config.soft_tokens)

    def soft_tokens(self, pixels: Tensor) -> Tensor:
        return self.tower(pixels, self.class_words())[0]

    def look(self, pixels: Tensor) -> Seen:
        """Read images [P, 3, side, side] in 0..1, each as it would be read alone."""
        # On a CPU one image at a time stays in its cache; a GPU wants many.
        size = 1 if pixels.device.type == "cpu" else AT_ONCE
        count = len(pixels)
        if count % size:
            pixels = torch.cat((pixels, pixels.new_zeros(-count % size, *pixels.shape[1:])))
        store = self.new_store(len(pixels))
        parts = [self._look(*part) for part in zip(pixels.split(size), store.split(size, 2), strict=True)]
        return Seen.joined(parts, store, pixels).first(count)

    def new_store(self, images: int) -> Tensor:
        """Room for keys and values of the soft tokens of so many images: [layers, 2, P, K, S, H]."""
        c, like = self.config.decoder, self.decoder.norm.weight
        shape = c.depth, 2, images, c.key_heads, self.config.soft_tokens, c.head_width
        return torch.empty(shape, dtype=self.prefix_in or like.dtype, device=like.device)

    def _look(self, pixels: Tensor, store: Tensor) -> Seen:
        """Images in one pass; the keys and values of their soft tokens are written to `store`."""
        found, raw = self.tower.detect(pixels)
        proposed = self.tower.propose(raw, found)
        soft, planes = self.tower.read(pixels, found, proposed, self.class_words())
        valid = torch.ones(soft.shape[:2], dtype=torch.bool, device=soft.device)
        c, like = self.config.decoder, self.decoder.norm.weight
        rows, length = valid.shape
        sizes = c.depth, rows, length, c.key_heads, c.head_width
        cache = KVCache(*sizes, store.dtype, store.device, store=store)
        cache.extend(valid)
        hidden = self.decoder(soft.to(like.dtype), prefix_positions(valid), None, cache)
        grid, proposals = hidden.split((soft.shape[1] - self.config.proposals, self.config.proposals), 1)
        classified, there = self.classifier(proposals, grid.mean(1))
        return Seen(store, planes, raw, proposed[0].float(), proposed[1].float(), classified, there)

    def prefill(self, inputs: Inputs, cache: KVCache) -> Tensor:
        """As `PrefixLM.prefill`; an answer that finds nothing at once is held back by `absent_bias`.

        Half of what training asked for was absent; people mostly ask for what is there. The bias is the
        log-odds between those two expectations (Saerens et al. 2002, Neural Computation 14).
        """
        seen = self.look(torch.stack(inputs.images)) if inputs.context is None else inputs.context
        soft = self.config.soft_tokens
        text, valid = inputs.tokens[:, soft:], inputs.valid[:, soft:]
        cache.extend(inputs.valid[:, :soft])
        if cache.ahead:
            cache.lean_on(seen.store, list(range(len(text))) if seen.image is None else seen.image.tolist())
        else:
            store = seen.store if seen.image is None else seen.store.index_select(2, seen.image)
            cache.store[..., :soft, :] = store
        cache.extend(valid)
        mask = cache.valid[:, None, None, : cache.length].expand(-1, -1, text.shape[1], -1)
        positions = prefix_positions(inputs.valid)[:, soft:]
        hidden = self.decoder(self.decoder.embed(text), positions, mask, cache)
        logits = self._allowed(self.decoder.logits(hidden[:, -1]))
        finding = self._begins_with(text, self.config.finding_tokens)
        cache.context = self._begin(seen, text, cache)
        logits[finding, self.config.eos_token] -= self.config.absent_bias
        return logits

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """As `PrefixLM.step`; where a row writes mask codes the mask head's logits are added."""
        x = self.decoder.embed(tokens[:, None])
        positions = cache.positions[:, None].clone()
        cache.extend_by_one()
        assert isinstance(cache.context, Writing)  # as `prefill` left it
        codes = cache.context.read(tokens, cache, self.tower, self.config)
        hidden = self.decoder(x, positions, cache.step_mask(), cache)
        logits = self.decoder.logits(hidden[:, -1])
        if codes is not None:
            first = self.config.seg_token
            logits[:, first : first + MASK_CODES] += codes.to(logits.dtype)
        return self._allowed(logits)

    def _begin(self, seen: Seen, text: Tensor, cache: KVCache) -> Writing:
        """The state of answers to prompts `text` [B, T]."""
        device = text.device
        masks = self._begins_with(text, self.config.finding_tokens[-1:])
        image = torch.arange(len(text), device=device) if seen.image is None else seen.image
        written = torch.zeros(len(text), cache.capacity, dtype=torch.long, device=device)
        words = self.asked_words(text)
        return Writing.begin(seen.planes, image, masks, written, words, self.evidence(seen), seen.outlined, self.tower)

    def evidence(self, seen: Seen) -> Tensor:
        """For each class the log-odds that it is in the image [P, 80], from all that looked at it."""
        detector = torch.cat([out[:, :CLASSES].float().flatten(2) for out in seen.raw], 2).amax(2)
        constant, *weights = self.config.evidence
        parts = (detector, seen.classified.amax(1), seen.there)
        return sum((w * part for w, part in zip(weights, parts, strict=True)), torch.full_like(detector, constant))

    def _begins_with(self, text: Tensor, words: tuple[int, ...]) -> Tensor:
        """Which of the prompts [B, T] begin with one of the words [B]."""
        begins = text[:, :-1] == self.config.bos_token
        return (begins & torch.isin(text[:, 1:], torch.tensor(words, dtype=torch.long, device=text.device))).any(dim=1)
