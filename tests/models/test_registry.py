"""The registry imports a family only when a checkpoint asks for it."""

import subprocess
import sys

import pytest

from mmcli.errors import ModelError
from mmcli.models.registry import FAMILIES, family_of


def test_a_known_type_finds_its_family():
    assert family_of({"model_type": "paligemma"}, "m").name == "PaliGemma"


@pytest.mark.parametrize("config, message", [({"model_type": "llava"}, "'llava'"), ({}, "no model_type")])
def test_an_unknown_type_lists_what_is_known(config, message):
    with pytest.raises(ModelError, match=f"(?s)m .*{message}.*{'.*'.join(sorted(FAMILIES))}"):
        family_of(config, "m")


def test_finding_models_and_families_imports_no_torch():
    code = (
        "import sys, mmcli.models.registry, mmcli.models.family, mmcli.hub.resolve, mmcli.hub.download\n"
        "sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
