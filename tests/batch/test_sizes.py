"""How much goes through a model together when nobody says."""

from types import SimpleNamespace

import pytest
import torch

from mmcli.batch.sizes import LARGE_FOR_AUDIO, LARGE_FOR_IMAGES, default_batch_size, default_places


@pytest.mark.parametrize("large", [LARGE_FOR_IMAGES, LARGE_FOR_AUDIO])
@pytest.mark.parametrize(("device", "more", "size"), [("cuda", 10, 16), ("cpu", 0, 8), ("cpu", 1, 2)])
def test_few_go_together_where_the_weights_are_large_and_memory_is_the_machines_own(device, more, size, large):
    with torch.device("meta"):  # of any size: it takes no memory
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.empty(large + more))])
    assert default_batch_size(SimpleNamespace(model=model, device=torch.device(device)), large) == size


@pytest.mark.parametrize(
    ("device", "square", "places"), [("cuda", (224, 3), 32), ("cuda", None, 16), ("cpu", (224, 3), 16)]
)
def test_a_gpu_writes_more_answers_about_images_of_one_size_than_it_reads_images_together(device, square, places):
    loaded = SimpleNamespace(device=torch.device(device), processor=SimpleNamespace(square=square))
    assert default_places(loaded, 16) == places
