"""What counts as a trace of a class in an image."""

import numpy as np
import torch

from mmcli.models.nano.config import EVIDENCE
from mmcli.training.recipes.nano.annotations import COCO_CLASSES, LabelledBox, Photo
from mmcli.training.recipes.nano.evidence import fit
from mmcli.training.recipes.nano.packing import Batch
from mmcli.training.recipes.nano.regression import logistic
from mmcli.training.recipes.nano.training_model import TrainingModel

CAT, DOG, CUP = (COCO_CLASSES.index(label) for label in ("cat", "dog", "cup"))


def photo(doubtful: frozenset[str]) -> Photo:
    objects = [LabelledBox("cat", (0.1, 0.1, 0.6, 0.6)), LabelledBox("cup", (0.0, 0.0, 0.05, 0.05))]
    return Photo("", "", 1, 1, "coco", "train", (), (), objects, doubtful, (), frozenset(COCO_CLASSES), {}, [])


def test_a_regression_finds_the_odds_that_outcomes_were_drawn_by():
    rng = np.random.default_rng(0)
    x = np.stack((np.ones(20000), rng.normal(size=20000), rng.normal(size=20000)), 1)
    truth = np.array([-1.0, 2.0, 0.0])
    y = (rng.random(20000) < 1 / (1 + np.exp(-x @ truth))).astype(float)
    np.testing.assert_allclose(logistic(x, y), truth, atol=0.1)


def test_small_objects_and_doubtful_classes_say_nothing_of_what_a_trace_is():
    found = np.zeros((40, 80, EVIDENCE))
    found[..., 0], found[..., 1] = 1.0, -3.0
    found[:, CAT, 1] = np.linspace(-1, 2, 40)
    found[:, [CUP, DOG], 1] = 9.0  # a cup of no size, and a dog that is in doubt: neither there nor absent
    weights, there, absent = fit(found, [photo(frozenset({"dog"}))] * 40)
    assert len(there) == 40 and len(absent) == 40 * 77
    assert weights[1] > 1 and there.min() > absent.max()


def test_only_names_of_what_is_surely_absent_are_unlikely_in_sentences():
    model = TrainingModel.__new__(TrainingModel)
    torch.nn.Module.__init__(model)
    model.name_tokens, model.name_means = torch.tensor([2, 3]), torch.zeros(2, 80)  # of a cat and of a dog
    model.name_means[0, CAT] = model.name_means[1, DOG] = 1.0
    fields = {name: torch.zeros(1) for name in Batch.__dataclass_fields__}
    batch = Batch(**fields)
    batch.known = torch.ones(1, 80, dtype=torch.bool)
    batch.labels = torch.tensor([[CAT, -1]])
    batch.target, batch.weight = torch.tensor([[1, 1]]), torch.ones(1, 2)
    batch.sentence = torch.tensor([[True, False]])
    share = torch.tensor([0.4, 0.1, 0.2, 0.3])  # of the tokens: the cat's name 0.2, the dog's 0.3
    logp = share.log().expand(1, 2, -1)
    expected = -torch.log1p(torch.tensor(-0.3))
    torch.testing.assert_close(model._unlikelihood(logp, batch), expected)
    batch.target = torch.tensor([[3, 1]])  # somebody wrote of a dog
    torch.testing.assert_close(model._unlikelihood(logp, batch), torch.tensor(0.0))
    batch.target, batch.known[0, DOG] = torch.tensor([[1, 1]]), False  # nobody looked for dogs
    torch.testing.assert_close(model._unlikelihood(logp, batch), torch.tensor(0.0))
