import subprocess
import sys

import pytest

from mmcli.tasks.caption import CaptionRequest
from mmcli.tasks.chat import ChatRequest
from mmcli.tasks.detect import DetectRequest, tidy_labels
from mmcli.tasks.segment import SegmentRequest


@pytest.mark.parametrize(
    ("request_", "prompt"),
    [
        (CaptionRequest(), "caption en"),
        (DetectRequest(words="cat ; dog"), "detect cat ; dog"),
        (SegmentRequest(words="cat"), "segment cat"),
        (ChatRequest(words="what is it?"), "answer en what is it?"),
        (CaptionRequest(prompt="detect cat\n"), "detect cat\n"),  # word for word, whatever the task
        (ChatRequest(words="what is \udcff?"), "answer en what is ??"),  # a byte that is no character
        (CaptionRequest(prompt=""), ""),  # an empty prompt is a prompt
    ],
)
def test_the_prompt_is_the_processors_for_the_task_or_the_users_own(loaded, request_, prompt):
    assert request_.prompt_for(loaded.processor) == prompt


def test_the_token_limit_is_the_tasks_unless_set():
    assert CaptionRequest(max_tokens=3).token_limit == 3
    assert SegmentRequest().token_limit == SegmentRequest.default_max_tokens


@pytest.mark.parametrize(
    ("words", "tidy"),
    [
        ("cat", "cat"),
        ("cat;dog", "cat ; dog"),  # the separator that models know has spaces
        (" cat  ; red ball ;", "cat ; red ball"),  # nothing to find between or after separators
        (" ; ", ""),
    ],
)
def test_things_are_put_in_the_form_models_know(words, tidy):
    assert tidy_labels(words) == tidy


def test_tasks_import_neither_torch_nor_numpy_nor_pillow():
    modules = ["answer", "caption", "chat", "conversation", "detect", "result", "segment", "task"]
    code = "import sys\n" + "".join(f"import mmcli.tasks.{name}\n" for name in modules)
    code += "print([name for name in ('torch', 'numpy', 'PIL', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
