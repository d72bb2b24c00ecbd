"""Gemma 3n's audio encoder against transformers: small random models in float32, and the published sizes on meta."""

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from transformers import Gemma3nAudioConfig, Gemma3nAudioEncoder

from mmcli.hub.weights import Rule, place
from mmcli.models.gemma3n.audio import AUDIO_TENSORS, audio_stages, read_conformer
from mmcli.models.gemma3n.conformer import ConformerEncoder

SMALL = {"input_feat_size": 24, "hidden_size": 48, "conf_num_attention_heads": 4, "conf_num_hidden_layers": 3,
         "sscp_conv_channel_size": (10, 6)}  # fmt: skip
CASES = {
    "as published but small": {},
    "sees ahead": {"conf_attention_chunk_size": 5, "conf_attention_context_left": 4, "conf_attention_context_right": 3},
    "sees only itself": {"conf_attention_context_left": 1},
    "chunks of one": {"conf_attention_chunk_size": 1, "conf_attention_context_left": 0},
    "other convolutions": {
        "sscp_conv_kernel_size": ((2, 4), (5, 3)), "sscp_conv_stride_size": ((2, 1), (3, 2)),
        "conf_conv_kernel_size": 3, "conf_reduction_factor": 1,
    },
    "numbers that bite": {
        "gradient_clipping": 0.7, "conf_attention_logit_cap": 1.5, "conf_residual_weight": 0.3, "rms_norm_eps": 0.2,
        "sscp_conv_group_norm_eps": 0.4,
    },
}  # fmt: skip
TABLE = [Rule(theirs, ours) for theirs, ours in AUDIO_TENSORS.items()]
FRAMES = [1, 2, 3, 16, 17, 97, 200]  # 16: one vector, 17: two


def make_reference(seed: int = 0, **settings) -> Gemma3nAudioEncoder:
    """Every parameter random, so that none is without effect: norms of both signs, attention that is no mean."""
    torch.manual_seed(seed)
    model = Gemma3nAudioEncoder(Gemma3nAudioConfig(**SMALL, **settings)).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=parameter[0].numel() ** -0.5)
        if name.endswith(("q_proj.weight", "per_dim_scale")):
            parameter.data *= 2
    return model


def make_ours(reference: Gemma3nAudioEncoder) -> ConformerEncoder:
    ours = ConformerEncoder(read_conformer(reference.config.to_dict()))
    ours.load_state_dict({place(TABLE, name)[1]: tensor for name, tensor in reference.state_dict().items()})
    return ours.eval()


@pytest.fixture(scope="module", params=CASES)
def pair(request) -> tuple[Gemma3nAudioEncoder, ConformerEncoder]:
    reference = make_reference(**CASES[request.param])
    return reference, make_ours(reference)


def frames(*shape: int) -> torch.Tensor:
    """Something like log-mel frames, whose mean is far from 0."""
    return torch.randn(*shape, SMALL["input_feat_size"], generator=torch.Generator().manual_seed(sum(shape))) * 2 - 5


def encode(model, features: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(vectors, valid) of either model."""
    with torch.inference_mode():
        if isinstance(model, ConformerEncoder):
            return model(features, valid)
        output = model(features, ~valid)
        return output.last_hidden_state, ~output.audio_mel_mask


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("count", FRAMES)
def test_recordings_of_one_length(pair, count):
    features, valid = frames(2, count), torch.ones(2, count, dtype=torch.bool)
    theirs, their_valid = encode(pair[0], features, valid)
    ours, our_valid = encode(pair[1], features, valid)
    assert_close(ours, theirs)
    assert torch.equal(our_valid, their_valid) and ours.shape[1] == pair[1].config.vectors(count)


def test_silence(pair):
    """Equal frames have no variance until the audio's end is in sight."""
    features, valid = torch.full((1, 60, SMALL["input_feat_size"]), -11.5129), torch.ones(1, 60, dtype=torch.bool)
    assert_close(encode(pair[1], features, valid)[0], encode(pair[0], features, valid)[0])


def test_a_batch_equals_the_reference_singles(pair):
    lengths = (97, 33, 1, 64, 0)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = frames(len(lengths), max(lengths))  # what stands behind a shorter recording is no matter
    ours, our_valid = encode(pair[1], features, valid)
    for row, mask, audio, length in zip(ours, our_valid, features, lengths, strict=True):
        count = pair[1].config.vectors(length)
        assert mask.tolist() == [True] * count + [False] * (len(mask) - count)
        assert not row[count:].any()
        if length:
            alone, _ = encode(pair[0], audio[None, :length], torch.ones(1, length, dtype=torch.bool))
            assert_close(row[:count], alone[0])


def test_the_reference_batch_differs_in_no_more_than_the_last_vector_of_a_shorter_audio():
    """A convolution at the end of a shorter recording sees there what norms make of the padding."""
    reference = make_reference()
    ours = make_ours(reference)
    differing = set()
    for length in range(1, 64):
        valid = torch.arange(80) < torch.tensor([80, length])[:, None]
        features = frames(2, 80) * valid[:, :, None]
        theirs, their_valid = encode(reference, features, valid)
        found, our_valid = encode(ours, features, valid)
        assert torch.equal(our_valid, their_valid)
        assert_close(found[0], theirs[0])
        count = ours.config.vectors(length)
        assert_close(found[1, : count - 1], theirs[1, : count - 1])
        if not torch.allclose(found[1], theirs[1], rtol=1e-4, atol=1e-5):
            differing.add(length % 16)
    assert differing == {1, 2, 3, 4}  # where the last vector is of the last frame that the convolutions leave


def test_bfloat16_is_near(pair):
    features, valid = frames(1, 97), torch.ones(1, 97, dtype=torch.bool)
    exact, _ = encode(pair[1], features, valid)
    low, _ = encode(make_ours(pair[0]).bfloat16(), features, valid)
    assert low.dtype == torch.bfloat16 and (low.float() - exact).norm() < 0.1 * exact.norm()


def test_every_tensor_of_the_published_encoder_has_its_place_and_the_reverse():
    with torch.device("meta"):
        reference = Gemma3nAudioEncoder(Gemma3nAudioConfig()).state_dict()
        encoder = ConformerEncoder(read_conformer({}))
    ours = encoder.state_dict()
    placed = {name: place(TABLE, name)[1] for name in reference}
    assert sorted(placed.values()) == sorted(ours)
    assert {name: ours[own].shape for name, own in placed.items()} == {name: reference[name].shape for name in placed}
    stages = audio_stages(read_conformer({}), encoder)
    assert sum(stage.parameters for stage in stages) == sum(tensor.numel() for tensor in reference.values())
    assert [stage.output for stage in stages] == ["2997 × 128", "750 × 1536", "188 × 1536"]


def test_what_a_configuration_leaves_out_has_the_reference_values():
    assert read_conformer({}) == read_conformer(Gemma3nAudioConfig().to_dict())
