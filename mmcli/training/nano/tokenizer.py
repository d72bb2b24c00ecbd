"""Nano's tokenizer: byte-level sub-words of the training words, then PaliGemma's 1,024 places and 128 mask codes."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mmcli.models.nano.config import LOCATIONS, MASK_CODES

WORDS = 4096  # ids below this are special tokens and sub-words
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def train(texts: Iterable[str]) -> Tokenizer:
    """Learn the sub-words.

    The ids are <pad> 0, <eos> 1, <bos> 2, the words, <loc0000> 4096…, <seg000> 5120… and <image> 5248.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    filler = WORDS - tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(filler)])
    names = [f"<loc{i:04d}>" for i in range(LOCATIONS)] + [f"<seg{i:03d}>" for i in range(MASK_CODES)] + ["<image>"]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
    if tokenizer.token_to_id("<loc0000>") != WORDS:
        raise ValueError("the places must follow the words")
    return tokenizer
