"""index.html of a store: what strangers wrote stays text, and scores that are no scores are left out."""

import json
from pathlib import Path

import pytest
from tests.release.conftest import Repository

from loupe.release.manifest import write_manifest
from loupe.release.page import render
from loupe.release.registry import history, overview, promote, rollback
from loupe.release.store import open_store
from loupe.release.tags import Tags


@pytest.mark.parametrize(
    "metrics",
    ['{"sets": {"<b>": {"psnr_y": "<i>", "ssim_y": 1, "gain_db": 1}}}', '{"sets": [1]}', "[]", "[" * 100_000, "nan"],
)
def test_what_strangers_wrote_stays_text(repository: Repository, tmp_path: Path, metrics: str) -> None:
    store, tags = open_store(tmp_path / "releases"), Tags(repository.folder)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "metrics.json").write_text(metrics)
    write_manifest(bundle)
    promote(store, bundle, tags, {}, champion=None, by="<script>alert(1)</script>", reason="<b>bold</b>")
    page = (tmp_path / "releases" / "index.html").read_text()
    assert "&lt;script&gt;" in page
    for tag in ("<script", "<b>bold", "<i>", "http:", "https:"):
        assert tag not in page
    assert "default-src 'none'" in page


def test_the_same_history_gives_the_same_page(repository: Repository, tmp_path: Path) -> None:
    store, tags = open_store(tmp_path / "releases"), Tags(repository.folder)
    champion = None
    for number, gain in enumerate((2.0, -0.1)):
        bundle = tmp_path / f"bundle{number}"
        bundle.mkdir()
        sets = {"photos": {"psnr_y": 34.0, "ssim_y": 0.9, "gain_db": gain}} | ({"text": {}} if number else {})
        (bundle / "metrics.json").write_text(json.dumps({"sets": sets}))
        write_manifest(bundle)
        repository.commit(str(number))
        champion = promote(store, bundle, tags, {}, champion=champion, by="run 7", say=lambda line: None)
    rollback(store, by="night shift", say=lambda line: None)
    events = history(store)
    page = render(overview(store, events), events, "production")
    assert page == (tmp_path / "releases" / "index.html").read_bytes()
    text = page.decode()
    assert "Version 1.0.0 is in production" in text
    assert "rolled back, 1.1.0 → 1.0.0" in text
    assert text.index("night shift") < text.index("promoted, 1.0.0 → 1.1.0"), "latest first"
    assert render([], [], "production").decode().count("Nothing is in production") == 2
