"""PaliGemma 1 and 2 against transformers on small random checkpoints, module by module and as a whole."""

import shutil

import pytest
import support
import torch
from support import random_image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PROMPTS = ["caption en", "detect cat ; dog", "segment the red ball"]
EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


def test_pixels_equal_the_slow_reference_bit_for_bit(pair):
    for size in [(50, 37), (28, 28), (7, 90), (3, 3)]:
        image = random_image(2, *size)
        [ours] = pair.ours.processor.inputs([[image]], ["caption en"]).images
        assert torch.equal(ours[None], pair.reference_inputs([[image]], ["caption en"])["pixel_values"])


@pytest.mark.parametrize("prompt", ["caption en", "", "answer en what is on the mat", "a  cat", "<loc0007> cat", "é"])
def test_prompts_become_the_same_tokens(pair, prompt):
    ours = pair.ours.processor.inputs([[random_image()]], [prompt]).tokens
    assert ours.tolist() == pair.reference_inputs([[random_image()]], [prompt])["input_ids"].tolist()


def test_tower_and_projector(pair):
    pixels = torch.randn(3, 3, support.SIDE, support.SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tower = pair.reference.model.vision_tower(pixels).last_hidden_state
        soft = pair.reference.model.get_image_features(pixels).pooler_output
        torch.testing.assert_close(pair.ours.model.vision(pixels), tower, **EXACT)
        torch.testing.assert_close(pair.ours.model.soft_tokens(pixels), soft, **EXACT)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prefill_logits(pair, prompt):
    reference = pair.reference(**pair.reference_inputs([[random_image(3)]], [prompt])).logits[:, -1]
    ours = prefill(pair.ours, [[random_image(3)]], [prompt])
    torch.testing.assert_close(ours[:, : support.IMAGE], reference[:, : support.IMAGE], **EXACT)
    assert (ours[:, support.IMAGE :] == -torch.inf).all()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_answers(pair, prompt, seed):
    expected = pair.reference_tokens([[random_image(seed)]], [prompt])
    assert pair.our_tokens([[random_image(seed)]], [prompt]) == expected


def test_logprobs_are_those_of_the_reference(pair):
    from mmcli.engine.generate import generate
    from mmcli.engine.sampling import Sampling

    inputs = pair.reference_inputs([[random_image()]], ["caption en"])
    ours = pair.ours.processor.inputs([[random_image()]], ["caption en"])
    events = list(generate(pair.ours.model, ours, stop_ids=frozenset(), max_tokens=1, sampling=Sampling()))[0]
    logits = pair.reference(**inputs).logits[0, -1, : support.IMAGE]
    assert events[0].logprob == pytest.approx(logits.log_softmax(-1)[events[0].id].item(), abs=1e-5)


def test_several_images_in_one_row(pair):
    images, prompts = [[random_image(1), random_image(2)]], ["what is on the left"]
    assert pair.our_tokens(images, prompts) == pair.reference_tokens(images, prompts)


def test_a_row_without_an_image_reads_only_its_prompt(pair):
    """transformers' processor insists on images, so the layout is written out: bos, prompt, line break."""
    ids = pair.ours.processor.inputs([[]], ["caption en"])
    assert not ids.images and ids.tokens[0, 0] == 2
    logits = pair.reference(input_ids=ids.tokens, token_type_ids=torch.zeros_like(ids.tokens)).logits[:, -1]
    ours = prefill(pair.ours, [[]], ["caption en"])
    torch.testing.assert_close(ours[:, : support.IMAGE], logits[:, : support.IMAGE], **EXACT)


def test_a_padded_batch_gives_the_reference_answers_and_those_of_its_rows(pair):
    images = [[random_image(i)] for i in range(3)]
    together = pair.our_tokens(images, PROMPTS)
    assert together == [pair.our_tokens([own], [prompt])[0] for own, prompt in zip(images, PROMPTS, strict=True)]
    assert together == pair.reference_tokens(images, PROMPTS)


def test_rows_may_differ_in_their_number_of_images(pair):
    images, prompts = [[], [random_image(1)], [random_image(2), random_image(3)]], PROMPTS
    alone = [pair.our_tokens([own], [prompt])[0] for own, prompt in zip(images, prompts, strict=True)]
    assert pair.our_tokens(images, prompts) == alone


def test_cached_steps_equal_a_reading_without_cache(pair):
    """The reference without cache reads everything anew at every step; ours reads each token once."""
    expected = pair.reference_tokens([[random_image(5)]], [PROMPTS[1]], use_cache=False)
    assert pair.our_tokens([[random_image(5)]], [PROMPTS[1]]) == expected


def test_step_logits_beyond_the_window(second):
    """Written tokens, fed to the reference with its cache and to ours: each step's logits, far past the window."""
    inputs = second.reference_inputs([[random_image()]], ["detect cat"])
    ours = second.ours.processor.inputs([[random_image()]], ["detect cat"])
    length = ours.tokens.shape[1]
    assert length > 12, "the prefix alone is to be longer than the window"
    with torch.inference_mode():
        cache = second.ours.model.new_cache(1, length + 24)
        mine = second.ours.model.prefill(ours, cache)
        theirs = second.reference(**inputs, use_cache=True)
        for position in range(length + 1, length + 25):
            torch.testing.assert_close(mine[:, : support.IMAGE], theirs.logits[:, -1, : support.IMAGE], **EXACT)
            token = mine.argmax(-1)
            mine = second.ours.model.step(token, cache)
            theirs = second.reference(
                input_ids=token[:, None],
                past_key_values=theirs.past_key_values,
                position_ids=torch.tensor([[position]]),  # counted from 1 there
                use_cache=True,
            )


def test_the_window_and_the_caps_matter_in_these_checkpoints(second):
    """Without this the tests above could pass by a model that ignores them."""
    inputs = second.ours.processor.inputs([[random_image()]], ["detect cat"])
    decoder = second.ours.model.decoder

    def logits(window, cap) -> torch.Tensor:
        second.ours.model.sliding_window = window
        for layer in decoder.layers:
            layer.attention.softcap = cap
        with torch.inference_mode():
            cache = second.ours.model.new_cache(1, inputs.tokens.shape[1] + 1)
            token = second.ours.model.prefill(inputs, cache).argmax(-1)
            return second.ours.model.step(token, cache)[:, : support.IMAGE]

    try:
        usual = logits(12, 50.0)
        assert (usual - logits(None, 50.0)).abs().max() > 1e-2
        assert (usual - logits(12, 1.0)).abs().max() > 1e-2
    finally:
        logits(12, 50.0)


def test_all_generations_of_names_and_shards_load_to_the_same_model(pair, tmp_path, load_folder, our_answer):
    expected = pair.our_tokens([[random_image()]], ["caption en"])
    for style in ("as saved in memory", "2024", "shards"):
        folder = tmp_path / style
        shutil.copytree(pair.folder, folder)
        if style == "2024":
            support.rename_as_of_2024(folder)
        else:
            shards = "60KB" if style == "shards" else "5GB"
            (folder / "model.safetensors").unlink()
            pair.reference.save_pretrained(folder, max_shard_size=shards, save_original_format=style == "shards")
            assert (style == "shards") == (folder / "model.safetensors.index.json").is_file()
        loaded = load_folder(folder)
        assert our_answer(loaded, [[random_image()]], ["caption en"]) == expected, style
        for name, tensor in pair.ours.model.state_dict().items():
            assert torch.equal(tensor, loaded.model.state_dict()[name]), (style, name)


def test_a_vocabulary_without_filler_is_used_whole_but_for_the_image_token(tmp_path, load_folder):
    """Where no row is filler, all ids behind the image token are words like any other."""
    config = support.tiny_config(False, rows=2000)
    support.write_checkpoint(tmp_path, support.tiny_reference(config))
    logits = prefill(load_folder(tmp_path), [[random_image()]], ["caption en"])
    assert (logits == -torch.inf).nonzero()[:, 1].tolist() == [support.IMAGE]


@pytest.mark.parametrize("second", [False, True])
def test_a_foreign_tokenizer_and_untouched_weights(tmp_path, load_folder, our_answer, second):
    """Words split at white space, so that the prompt's line break is no token, and <image> in front of <loc0000>.

    Nothing is forbidden here but <image>, and transformers may write whatever its random weights say.
    """
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}, unk_token="<unk>"))
    tokenizer.add_tokens(sorted(set(support.WORDS.split())))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    images = support.SiglipImageProcessorPil(size={"height": support.SIDE, "width": support.SIDE})
    images.image_seq_length = 16
    processor = support.PaliGemmaProcessor(images, fast)
    config = support.tiny_config(second, rows=len(fast))
    config.image_token_index = config.image_token_id = processor.image_token_id
    torch.manual_seed(0)
    reference = support.PaliGemmaForConditionalGeneration(config).eval()
    reference.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for prompt in PROMPTS:
        inputs = processor(images=random_image(), text="<image>" + prompt, return_tensors="pt")
        inputs.pop("labels")
        output = reference.generate(**inputs, max_new_tokens=24, do_sample=False)
        expected = output[0, inputs["input_ids"].shape[1] :].tolist()
        assert our_answer(load_folder(tmp_path), [[random_image()]], [prompt]) == [expected]


def test_bfloat16_stays_close(pair, load_folder):
    """Not equal, but the same model: a wrong scale or a lost norm would be far off."""
    from mmcli.models.load import load

    short = load(pair.ours.checkpoint, "cpu", torch.bfloat16)
    wide = prefill(pair.ours, [[random_image()]], ["caption en"])[:, : support.IMAGE]
    close = prefill(short, [[random_image()]], ["caption en"])[:, : support.IMAGE]
    assert (wide - close).abs().max() < 0.1 * wide.std() + 0.05


def prefill(loaded, images, prompts) -> torch.Tensor:
    inputs = loaded.processor.inputs(images, prompts).to(loaded.device, loaded.dtype)
    with torch.inference_mode():
        return loaded.model.prefill(inputs, loaded.model.new_cache(*inputs.tokens.shape))
