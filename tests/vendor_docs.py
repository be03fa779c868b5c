"""Fetch the two documentation pages' scripts at their pinned versions: `python tests/vendor_docs.py`.

Needs npm. To move to another version: change it here with the integrity that `npm view NAME@VERSION
dist.integrity` tells, run this, and look at both pages.
"""

import base64
import hashlib
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "chat_sse" / "web" / "docs" / "assets"

# Name, version, the archive's integrity, and which of its files become ours under which name.
PACKAGES = (
    (
        "swagger-ui-dist",
        "5.35.0",
        "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        {
            "swagger-ui-bundle.js": "swagger-ui-bundle.js",
            "swagger-ui-bundle.js.LICENSE.txt": "swagger-ui-bundle.js.LICENSE.txt",
            "swagger-ui.css": "swagger-ui.css",
            "LICENSE": "swagger-ui.LICENSE.txt",
            "NOTICE": "swagger-ui.NOTICE.txt",
        },
    ),
    (
        "redoc",
        "3.0.1",
        "sha512-KDfoKaYW19LCl4YStgBnwlaNjYEFfs5zCNt1s1WZ2YM5u8d26Yuzd2l43fZO851ZsgIMe/D640fDJkD8eaRQKQ==",
        {"bundles/redoc.standalone.js": "redoc.standalone.js", "LICENSE": "redoc.LICENSE.txt"},
    ),
)

# Redoc loads its attribution's logo from another host and has no option for it: the same words, drawn here.
LOGO = (
    b"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='56' height='16'%3E"
    b"%3Ctext y='13' font-family='sans-serif' font-size='14' fill='gray'%3ERedocly%3C/text%3E%3C/svg%3E"
)
REPLACED = {
    "redoc.standalone.js": {
        b"https://cdn.redoc.ly/redoc/logo-mini-full.svg": LOGO,
        b"https://cdn.redoc.ly/redoc/logo-mini.svg": LOGO,
    }
}


def main() -> None:
    """Fetch, verify, unpack, and write down what was fetched."""
    lines = ["Written by tests/vendor_docs.py. File, package, SHA-256.", ""]
    for name, version, integrity, files in PACKAGES:
        with tarfile.open(fileobj=io.BytesIO(fetch(name, version, integrity))) as archive:
            for source, target in files.items():
                content = unpack(archive, source, REPLACED.get(target, {}))
                (ASSETS / target).write_bytes(content)
                changed = ", changed" if target in REPLACED else ""
                lines.append(f"{target}  {name}@{version}{changed}  {hashlib.sha256(content).hexdigest()}")
    (ASSETS / "VENDORED.txt").write_text("\n".join(lines) + "\n")


def fetch(name: str, version: str, integrity: str) -> bytes:
    """Give the package's archive. Raises ValueError when it is not the one that was pinned."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
        content = next(Path(folder).glob("*.tgz")).read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != integrity:
        raise ValueError(f"{name}@{version} has the integrity {found}")
    return content


def unpack(archive: tarfile.TarFile, source: str, replaced: dict[bytes, bytes]) -> bytes:
    """Give one file of a package, without the reference to a source map that is not served."""
    member = archive.extractfile(f"package/{source}")
    if member is None:
        raise ValueError(f"{source} is no file")
    content = member.read()
    for old, new in replaced.items():
        if content.count(old) != 1:
            raise ValueError(f"{old!r} does not stand in {source} once")
        content = content.replace(old, new)
    return b"\n".join(line for line in content.split(b"\n") if b"# sourceMappingURL=" not in line)


if __name__ == "__main__":
    main()
