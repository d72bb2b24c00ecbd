"""Sizes of the bundled model, read from its config.json."""

from dataclasses import dataclass, fields

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, HEAD_WIDTH, HEADS, INNER, ROWS, WIDTH, Fields, shown
from mmcli.layers.gemma import DecoderConfig
from mmcli.models.nano.joining import CALIBRATION, FEATURES, KINDS, Calibration
from mmcli.models.nano.labels import LABELS

CLASSES = 80  # that the detector knows
CELL = 16  # pixels of the feature tower's input that one grid token stands for
LARGEST_STRIDE = 32  # pixels of an image's side that one cell of the coarsest maps stands for
EVIDENCE = 4  # 1, the detector's best logit, the proposal classifier's best of a proposal, and its of the image
EVIDENCE_OF_DETECTOR = (0.0, 1.0, 0.0, 0.0)
TOKENS = ("image_token", "loc_token", "seg_token", "pad_token", "eos_token", "bos_token")


@dataclass(frozen=True)
class SentenceRules:
    """What holds for sentences beside their being words (`sentences`); `training.recipes.nano.sentences` finds it."""

    prompts: tuple[int, ...]  # first words of the prompts that are answered with a sentence
    never_last: tuple[int, ...]  # words with which no sentence ends
    repeatable: tuple[int, ...]  # words that may come twice
    same_word: tuple[tuple[int, ...], ...]  # forms that count as one word where words are not to come twice
    phrases: tuple[tuple[int, ...], ...]  # names of two words: a token, the one behind it, the number of the class
    presence: tuple[float, ...]  # slope and constant of a class's log-odds of being there, from the evidence for it
    grounding: float  # weight of the log-probability of being there, in the choice of a sentence that names a class


FREE = SentenceRules((), (), (), (), (), (0.0, 0.0), 0.0)  # no rules


@dataclass(frozen=True)
class NanoConfig:
    """One image side for the detector, one for the feature tower, and a small Gemma decoder behind them."""

    image_size: int  # pixels; what the processor makes and the detector reads
    feature_size: int  # pixels; the feature tower reads the image reduced to this
    proposals: int  # soft tokens made from the detector's best boxes
    image_token: int
    loc_token: int  # id of <loc0000>
    seg_token: int  # id of <seg000>
    pad_token: int
    eos_token: int
    bos_token: int
    finding_tokens: tuple[int, ...]  # first words of the prompts that look for objects: "detect", "segment"
    absent_bias: float  # taken from the logit of an empty answer to those
    things: tuple[str, ...]  # the labels that it was taught; the first are the detector's classes, in their order
    finding: Calibration  # how boxes of decoder and detector are weighed
    class_tokens: tuple[tuple[int, ...], ...]  # the detector's classes in the decoder's own words
    first_words: tuple[int, int]  # ids from … to before …: whole words that may begin a sentence
    later_words: tuple[int, int]  # whole words and marks that may follow; between and behind them are pieces of words
    names: tuple[tuple[int, ...], ...]  # words for what the detector knows: a token, then the classes it may mean
    evidence: tuple[float, ...]  # weights of EVIDENCE for the log-odds that a class is in the image
    least_evidence: float  # below these log-odds nothing of a class is named in a sentence
    sentences: SentenceRules
    decoder: DecoderConfig

    @property
    def grid(self) -> int:
        """Side of the grid of soft tokens."""
        return self.feature_size // CELL

    @property
    def soft_tokens(self) -> int:
        return self.grid**2 + self.proposals

    @classmethod
    def from_json(cls, raw: dict) -> "NanoConfig":
        """Read config.json; ModelError if something is missing, unknown or of no use."""
        otherwise = {"finding_tokens": (), "absent_bias": 0.0, "things": LABELS, "names": (), "least_evidence": 0.0}
        otherwise["evidence"] = EVIDENCE_OF_DETECTOR
        whole = Fields(raw, "This nano model's config.json", otherwise)
        decoder = _read_decoder(whole.part("decoder"))
        rows = decoder.vocabulary
        own = {key: whole.whole(key, 0, rows - 1) for key in TOKENS}
        whole.unlike("image_token", own["image_token"], [own["pad_token"], own["bos_token"]])
        unknown = raw.keys() - {field.name for field in fields(cls)} - {"model_type", "architectures"}
        if unknown:
            raise ModelError(f"{whole.where} does not fit: {shown(min(unknown))} is unknown")
        side, small = whole.whole("image_size", 64, 2048), whole.whole("feature_size", CELL, 1024)
        if side % LARGEST_STRIDE or small % LARGEST_STRIDE:
            raise ModelError(f"{whole.where} sets sides of {side} and {small}, not multiples of {LARGEST_STRIDE}")
        return cls(
            image_size=side,
            feature_size=small,
            proposals=whole.whole("proposals", 1, (side // LARGEST_STRIDE) ** 2),
            finding_tokens=whole.wholes("finding_tokens", 0, rows - 1, longest=16),
            absent_bias=whole.number("absent_bias", -100, 100),
            things=_read_labels(whole),
            finding=_read_finding(whole.part("finding", vars(CALIBRATION))),
            class_tokens=_read_class_tokens(whole, rows),
            first_words=_read_range(whole, "first_words", rows),
            later_words=_read_range(whole, "later_words", rows),
            names=_read_names(whole, rows),
            evidence=whole.numbers("evidence", -100, 100, EVIDENCE, EVIDENCE),
            least_evidence=whole.number("least_evidence", -100, 100),
            sentences=_read_sentences(whole.part("sentences", vars(FREE)), rows),
            decoder=decoder,
            **own,
        )


def _read_labels(raw: Fields) -> tuple[str, ...]:
    labels = raw.items("things", 2000)
    if not all(isinstance(label, str) and 0 < len(label) <= 60 and ";" not in label for label in labels):
        raise raw.wrong("things", "a list of short names")
    return tuple(labels)


def _read_finding(raw: Fields) -> Calibration:
    weights = {kind: raw.numbers(kind, -100, 100, FEATURES, FEATURES) for kind in KINDS}
    return Calibration(raw.number("least", 0, 1), raw.number("further", 0, 1), **weights)


def _read_class_tokens(raw: Fields, rows: int) -> tuple[tuple[int, ...], ...]:
    names = raw.items("class_tokens", CLASSES)
    right = len(names) == CLASSES and all(
        isinstance(ids, list) and ids and all(type(i) is int and 0 <= i < rows for i in ids) for ids in names
    )
    if not right:
        raise raw.wrong("class_tokens", f"{CLASSES} lists of token ids")
    return tuple(tuple(ids) for ids in names)


def _read_names(raw: Fields, rows: int) -> tuple[tuple[int, ...], ...]:
    names = raw.items("names", 4000)
    for entry in names:
        right = isinstance(entry, list) and len(entry) > 1 and all(type(i) is int and i >= 0 for i in entry)
        if not right or entry[0] >= rows or max(entry[1:]) >= CLASSES:
            raise raw.wrong("names", "lists of a token id and the numbers of classes")
    return tuple(tuple(entry) for entry in names)


def _read_sentences(raw: Fields, rows: int) -> SentenceRules:
    same = raw.items("same_word", rows)
    if not all(isinstance(ids, list | tuple) and all(type(i) is int and 0 <= i < rows for i in ids) for ids in same):
        raise raw.wrong("same_word", "lists of token ids")
    phrases = raw.items("phrases", 4000)
    bounds = (rows, rows, CLASSES)
    for ids in phrases:
        right = isinstance(ids, list | tuple) and len(ids) == len(bounds) and all(type(i) is int for i in ids)
        if not right or not all(0 <= i < end for i, end in zip(ids, bounds, strict=True)):
            raise raw.wrong("phrases", "lists of two token ids and the number of a class")
    return SentenceRules(
        prompts=raw.wholes("prompts", 0, rows - 1, longest=16),
        never_last=raw.wholes("never_last", 0, rows - 1, longest=rows),
        repeatable=raw.wholes("repeatable", 0, rows - 1, longest=rows),
        same_word=tuple(map(tuple, same)),
        phrases=tuple(map(tuple, phrases)),
        presence=raw.numbers("presence", -100, 100, 2, 2),
        grounding=raw.number("grounding", 0, 100),
    )


def _read_range(raw: Fields, name: str, rows: int) -> tuple[int, int]:
    ends = raw.wholes(name, 0, rows, longest=2)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise raw.wrong(name, "where a range of token ids begins and ends")
    return ends[0], ends[1]


def _read_decoder(raw: Fields) -> DecoderConfig:
    head_width = raw.whole("head_width", *HEAD_WIDTH)
    heads, key_heads = raw.whole("heads", *HEADS), raw.whole("key_heads", *HEADS)
    if heads % key_heads or head_width % 2:
        raise ModelError(
            f"{raw.where} sets {heads} heads of {head_width} numbers and {key_heads} for keys: expected are a multiple "
            "of the latter, and an even number"
        )
    known = ("vocabulary", "width", "depth", "mlp_width", "heads", "key_heads", "head_width")
    unknown = raw.raw.keys() - set(known)
    if unknown:
        raise ModelError(f"{raw.where} does not fit: {shown(raw.path + min(unknown))} is unknown")
    return DecoderConfig(
        vocabulary=raw.whole("vocabulary", *ROWS),
        width=raw.whole("width", *WIDTH),
        depth=raw.whole("depth", *DEPTH),
        mlp_width=raw.whole("mlp_width", *INNER),
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        query_scale=head_width**-0.5,
    )
