"""What pyproject.toml cannot say: the package's description is README.md without what leads nowhere outside the
repository, its pictures and its links to files."""

import re
from pathlib import Path

from setuptools import setup

page = Path(__file__).with_name("README.md").read_text("utf-8")
text = "\n\n".join(block for block in page.split("\n\n") if "![" not in block)
setup(
    long_description=re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text),
    long_description_content_type="text/markdown",
)
