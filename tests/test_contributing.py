"""The map for newcomers names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_file_that_the_guide_names_is_there() -> None:
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    names = set(re.findall(r"`((?:[\w.]+/)*[\w]+\.(?:py|json|html|js))`", guide))
    assert len(names) > 20
    known = {
        path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.*") if "node_modules" not in path.parts
    }
    missing = {name for name in names if not any(path == name or path.endswith(f"/{name}") for path in known)}
    assert missing == set()
