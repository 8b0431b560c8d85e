"""A planted marker travels through the main job and is looked for in everything that real nodes have written."""

from __future__ import annotations

import secrets
from pathlib import Path

from commandline import Sovchain

PARTIES = ("government", "finance")
ALLOWED = {"pvtdataStore", "stateLeveldb"}
"""Where private data may lie in the folder of a party's peer."""


def search(sovchain: Sovchain, folder: Path) -> None:
    """Share a file with a marker on a founded network; it is in the two parties' private stores and nowhere else.

    Block files, logs and state databases of all peers and ordering nodes are searched.
    """
    marker = f"MARKER{secrets.token_hex(8)}"
    file = folder / "mine.csv"
    file.write_text(f"enterprise,note\nNanming Noodles,{marker}\n")
    dataset = sovchain.share(file)["dataset"]["id"]
    answer = sovchain.ok(
        "request", dataset, "--channel", "finance", "--as", "Finance", "--purpose", "credit-assessment"
    )
    sovchain.ok("release", answer["request"], "--channel", "finance", "--as", "Government")
    target = folder / "received.csv"
    sovchain.ok("open", answer["request"], "--channel", "finance", "--as", "Finance", "--output", target)
    assert target.read_bytes() == file.read_bytes()
    assert sovchain.run("audit", "verify").code == 0

    holders, public = set(), False
    for path in sovchain.directory.rglob("*"):
        content = b"" if not path.is_file() or "wal" in path.parts else path.read_bytes()
        if marker.encode() in content:
            holders.add(path.relative_to(sovchain.directory))
        public = public or ("chains" in path.parts and dataset.encode() in content)
    assert public, "the search does not find what is public"
    assert {path.parts[:2] for path in holders} <= {("nodes", f"peer0.{name}.guiyang.example") for name in PARTIES}
    assert all(ALLOWED & set(path.parts) for path in holders if "ledgersData" in path.parts), holders
