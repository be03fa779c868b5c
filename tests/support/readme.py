"""The README's code, as a user would copy it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def code_block(language: str, containing: str) -> str:
    """Return the one block of a language with a text in it."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if containing in block]
    return block
