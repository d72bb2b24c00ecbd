"""The conformer's views and masks against their definitions, and what each vector may attend to."""

import pytest
import torch

from mmcli.models.gemma3n.conformer import (
    ConformerConfig,
    ConformerEncoder,
    CumulativeNorm,
    chunk_mask,
    chunks,
    place_distances,
    surroundings,
)


def config(**changed) -> ConformerConfig:
    sizes = {
        "mels": 8, "width": 16, "depth": 2, "heads": 2, "channels": (4, 3), "kernels": ((3, 3), (3, 3)),
        "strides": ((2, 2), (2, 2)), "group_norm_epsilon": 1e-3, "norm_epsilon": 1e-6, "chunk": 4, "past": 3,
        "future": 0, "score_cap": 50.0, "kernel": 3, "reduction": 4, "residual": 0.5, "limit": 1e10,
    }  # fmt: skip
    return ConformerConfig(**(sizes | changed))


WINDOWS = [(4, 3, 0), (4, 3, 2), (1, 0, 0), (5, 0, 4), (3, 7, 1)]  # chunk, past, future


@pytest.mark.parametrize("chunk, past, future", WINDOWS)
@pytest.mark.parametrize("frames", [1, 4, 7, 23])
def test_each_frame_sees_itself_and_its_neighbours_and_no_padding(chunk, past, future, frames):
    settings = config(chunk=chunk, past=past, future=future)
    valid = torch.arange(frames)[None] < torch.tensor([[frames], [frames // 2]])
    mask = chunk_mask(valid, settings)
    places = surroundings(torch.arange(1, frames + 1)[None], settings)[0] - 1  # [U, S]; -1: before or behind the audio
    assert mask.shape == (2, len(places), 1, chunk, places.shape[1])
    for row in range(2):
        for frame in range(frames):
            u, w = divmod(frame, chunk)
            seen = places[u][mask[row, u, 0, w]].tolist()
            near = range(max(0, frame - past), min(frames, frame + future + 1))
            assert seen == [other for other in near if valid[row, other]]


@pytest.mark.parametrize("chunk, past, future", WINDOWS)
def test_scores_of_distances_come_to_stand_at_the_frames_that_far_away(chunk, past, future):
    scores = torch.arange(1, chunk * (past + future + 1) + 1).view(chunk, -1)
    placed = place_distances(scores[None])[0]
    assert placed.shape == (chunk, past + chunk + future)
    for row, own in enumerate(scores.tolist()):
        assert placed[row].tolist() == [0] * row + own + [0] * (chunk - 1 - row)


def test_chunks_and_their_surroundings_are_cut_in_step():
    x = torch.arange(1, 11).view(1, 10, 1, 1)
    settings = config(chunk=4, past=2, future=1)
    assert chunks(x, settings).flatten(1).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0]]
    expected = [[0, 0, 1, 2, 3, 4, 5], [3, 4, 5, 6, 7, 8, 9], [7, 8, 9, 10, 0, 0, 0]]
    assert surroundings(x, settings).flatten(2)[0].tolist() == expected


def test_the_cumulative_norm_equals_its_definition_frame_by_frame():
    x = torch.randn(2, 3, 9, 5, generator=torch.Generator().manual_seed(0)) * 4 - 7
    norm = CumulativeNorm(3, 1e-3)
    norm.weight.data = torch.tensor([0.5, -1.0, 2.0])
    squares = torch.zeros(2)
    for frame in range(9):
        so_far = x[:, :, : frame + 1]
        mean = so_far.mean(dim=(1, 2, 3))
        now = x[:, :, frame] - mean[:, None, None]
        squares += now.square().sum(dim=(1, 2))
        deviation = (squares / so_far[0].numel() + 1e-3).sqrt()
        expected = now / deviation[:, None, None] * norm.weight[:, None]
        torch.testing.assert_close(norm(x)[:, :, frame], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def encoder() -> ConformerEncoder:
    torch.manual_seed(0)
    encoder = ConformerEncoder(config(reduction=1)).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.data.normal_(std=parameter[0].numel() ** -0.5)
    return encoder


def encode(encoder: ConformerEncoder, features: torch.Tensor) -> torch.Tensor:
    return encoder(features, torch.ones(features.shape[:2], dtype=torch.bool))[0]


def test_a_vector_sees_nothing_behind_the_frames_that_its_convolutions_reach(encoder):
    features = torch.randn(1, 80, 8, generator=torch.Generator().manual_seed(1))
    changed = features.clone()
    changed[:, 43:] = 0  # vector v comes from frames up to 4v + 6
    whole, cut = encode(encoder, features), encode(encoder, changed)
    torch.testing.assert_close(cut[:, :10], whole[:, :10])
    assert not torch.isclose(cut[:, 10], whole[:, 10]).all()


@pytest.mark.parametrize("chunk", [1, 3, 12, 50])
def test_how_attention_is_cut_into_chunks_changes_nothing(encoder, chunk):
    other = ConformerEncoder(config(reduction=1, chunk=chunk))
    other.load_state_dict(encoder.state_dict())
    features = torch.randn(2, 101, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(encode(other, features), encode(encoder, features), rtol=1e-4, atol=1e-5)


def test_no_frames_make_no_vectors(encoder):
    vectors, valid = encoder(torch.zeros(3, 0, 8), torch.zeros(3, 0, dtype=torch.bool))
    assert vectors.shape == (3, 0, 16) and valid.shape == (3, 0)


def test_it_builds_on_meta_and_keeps_nothing_but_parameters():
    with torch.device("meta"):
        encoder = ConformerEncoder(config())
    assert not list(encoder.buffers())


@pytest.mark.parametrize("frames, vectors", [(0, 0), (1, 1), (16, 1), (17, 2), (2997, 188)])
def test_vectors_of_a_number_of_frames(frames, vectors):
    assert config().vectors(frames) == vectors
