"""What the UI shows: figures that are those of the commands, and names of strangers that are nothing but names."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from tests.conftest import picture
from tests.flows.runs import ROOT, Flow
from tests.release.test_gate import BETTER, CHAMPION, LIMITS, SOUND, side

from flows import show
from loupe.evaluation.methods import bicubic
from loupe.evaluation.pairs import Pair
from loupe.evaluation.run import evaluate, to_json
from loupe.imaging.resize import downscale
from loupe.quality.drift import FACTS, compare
from loupe.quality.drift import to_json as drift_json
from loupe.quality.ingest import Decision as Taken
from loupe.quality.ingest import Ingested
from loupe.release.gate import Contender, Override, decide
from loupe.training import follow

HOSTILE = (
    "a|b.png",
    "a\\|b`c.png",
    "<img src=https://evil.example/x.png>.png",
    "[click](https://evil.example).png",
    "![x](https://evil.example/x.png)",
    "https://evil.example/a.png",
    "www.evil.example.png",
    "shoe@2x.example.png",
    "line\nbreak\r.png",
    "\x1b[31mred\u202egnp.png",
    "**bold** _it_ ~~gone~~ &lt;b&gt; #1.png",
    "`code`.png",
    " ",
    "x" * 500 + ".png",
)


PLAIN = {"text", "code_inline", "strong_open", "strong_close", "softbreak", "inline", "paragraph_open"}
PLAIN |= {"paragraph_close", "heading_open", "heading_close", "bullet_list_open", "bullet_list_close"}
PLAIN |= {"list_item_open", "list_item_close"}
PLAIN |= {f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")}


def rendered(markdown: str) -> tuple[list[list[str]], list[str]]:
    """The cells of all tables as text by row, and the kinds of all that is more than text, lists and tables."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    rows: list[list[str]] = []
    kinds: list[str] = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and before and before.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in token.children or ()))
        kinds += [one.type for one in (token, *(token.children or ()))]
    return rows, [kind for kind in kinds if kind not in PLAIN]


def harmless(markdown: str) -> list[list[str]]:
    """The rows of all tables, once it is sure that nothing is a link, a picture or HTML, and no row has other cells."""
    rows, others = rendered(markdown)
    assert others == []
    outside = re.sub(r"`[^`]*`", "", markdown)
    assert not re.search(r"(?i)://|www\.|\w@\w", outside), "the UI makes links of these"
    assert "<" not in re.sub(r"\\<", "", outside)
    return rows


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("shown", [show.code, show.text])
def test_names_of_strangers_are_names(name: str, shown: Callable[[str], str]) -> None:
    markdown = show._table(("name", "after"), [(shown(name), "here")], "ll")
    head, row = harmless(markdown)
    assert head == ["name", "after"]
    assert row[1] == "here", "one cell"
    assert len(row) == 2


def test_a_name_is_shown_as_it_is() -> None:
    assert show.code("shoe_left *1*.png") == "`shoe_left *1*.png`"
    (_, row) = harmless(show._table(("name",), [(show.text("1 < 2 & [3] *4* _5_ a|b"),)], "l"))
    assert row == ["1 < 2 & [3] *4* _5_ a|b"]


def test_ingest() -> None:
    finding = {"rule": "min detail", "severity": "critical", "value": "0.05", "allowed": ">= 0.18", "advice": "give"}
    decisions = [Taken(name, "quarantined", "a" * 64, "x.png", (), (finding,)) for name in HOSTILE]
    decisions += [
        Taken("torn.png", "changed", "b" * 64),
        Taken("twice.png", "duplicate", "c" * 64, changes=("the same file as <b>|x</b>",)),
        Taken("fine.png", "accepted", "d" * 64, "fine-d.png"),
    ]
    found = json.loads(json.dumps(Ingested(tuple(decisions), ("<b>.txt",), "1" * 32, "2" * 32).to_json()))
    markdown = show.ingest_markdown(found)
    rows = harmless(markdown)
    assert (
        f"Of {len(HOSTILE) + 3} pictures 1 accepted, {len(HOSTILE)} in quarantine, 1 there twice, 1 changed" in markdown
    )
    assert "`111111111111` before, `222222222222` now" in markdown
    assert ["in quarantine", str(len(HOSTILE))] in rows
    refused = rows[rows.index(["picture", "why"]) + 1 :]
    assert len(refused) == len(HOSTILE) + 1
    assert refused[0][1] == "min detail 0.05, allowed is >= 0.18: give"
    assert refused[-1] == ["torn.png", "changed while they were read"]
    assert "`<b>.txt`" in markdown

    many = [Taken(f"{number}.png", "quarantined", "a" * 64) for number in range(show.MOST + 7)]
    markdown = show.ingest_markdown(Ingested(tuple(many), (), "1" * 32, "1" * 32).to_json())
    assert "and 7 more, see the report" in markdown
    assert "Product images: as it was" in markdown


def test_validation() -> None:
    rules = {"min side, critical": 0, "min side, warning": 7, "leak, critical": 2}
    found: dict[str, Any] = {"success": False, "critical": 2, "warning": 7, "sets": {}}
    found["sets"]["photos"] = {"images": 18, "refused": list(HOSTILE), "rules": rules}
    found["sets"]["products"] = {"images": 28, "refused": [], "rules": dict.fromkeys(rules, 0)}
    rows = harmless(show.validation_markdown(found))
    assert rows[:3] == [
        ["rule, severity", "photos, 18 pictures", "products, 28 pictures"],
        ["min side, warning", "7", "0"],
        ["leak, critical", "2", "0"],
    ]
    assert len(rows) == 4 + len(HOSTILE)
    found["sets"] = {"photos": {"images": 18, "refused": [], "rules": dict.fromkeys(rules, 0)}}
    fine = show.validation_markdown(found | {"success": True, "critical": 0, "warning": 0})
    assert fine == "All 18 pictures are as they should be.\n"


def facts(count: int, noise: float) -> pd.DataFrame:
    """A table as `measure_all` gives it, with what drift looks at."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(100, 1, count) for name in FACTS if name != "shorter_side"})
    return table.assign(width=500, height=400, decodable=True, noise=table["noise"] + noise)


def test_drift() -> None:
    found = json.loads(drift_json(compare(facts(40, 0), facts(30, 50), min_batch=20, draws=200)))
    markdown = show.drift_markdown(found, 20, ["drift in noise (1 of <b>)"])
    rows = harmless(markdown)
    assert rows[0] == ["fact", "reference median", "current median", "distance", "threshold", "drifted"]
    assert [row[0] for row in rows[1:] if row[-1] == "yes"] == ["noise"] == [rows[1][0]]
    noise = next(one for one in found["columns"] if one["name"] == "noise")
    assert rows[1][1:5] == [
        *(f"{noise[key]:.4g}" for key in ("reference_median", "current_median")),
        *(f"{noise[key]:.3g}" for key in ("statistic", "threshold")),
    ]
    assert len(rows) == 1 + len(FACTS)
    assert "Drift in 1 of 13 facts, noise: 30 pictures beside 40" in markdown
    assert r"- drift in noise (1 of \<b\>)" in markdown
    few = json.loads(drift_json(compare(facts(40, 0), facts(3, 50), min_batch=20)))
    markdown = show.drift_markdown(few, 20)
    assert "Too few to tell" in markdown
    assert harmless(markdown)[1][3:] == ["–", "–", "–"]


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """What evaluate.json holds, of bicubic enlargement."""
    pairs = [Pair("photos", f"{n}.png", hr, downscale(hr, 2)) for n in range(3) for hr in [picture(n, 64, 64)]]
    model = bicubic(2, "model")
    report = evaluate(pairs, dataclasses.replace(model, facts={"sha256": "f" * 64}))
    found: dict[str, Any] = json.loads(to_json(report.summary))
    return found


def test_scores_without_a_champion(summary: dict[str, Any]) -> None:
    markdown = show.scores_markdown(summary)
    heads, row = harmless(markdown)
    assert heads == ["set", "pictures", "PSNR-Y dB", "SSIM-Y", "bicubic", "gain over it (95 %)"]
    psnr = summary["sets"]["photos"]["psnr_y"]
    assert row[:3] == ["photos", "3", f"{psnr:.2f}"]
    assert row[4:] == [f"{psnr:.2f}", "+0.00 (+0.00 to +0.00)"]
    assert "beside bicubic enlargement alone" in markdown


def test_scores_beside_the_champion_that_the_gate_saw(summary: dict[str, Any]) -> None:
    decision = json.loads(json.dumps(decide(BETTER, CHAMPION, LIMITS, SOUND).as_dict()))
    markdown = show.scores_markdown(summary, decision)
    heads, row = harmless(markdown)
    assert heads[4:6] == ["champion", "gain over it (95 %)"]
    gain = np.mean([one["gain_db"] for one in decision["gains"] if one["set"] == "photos"])
    assert row[4] == f"{summary['sets']['photos']['psnr_y'] - gain:.2f}"
    assert re.fullmatch(rf"\+{gain:.2f} \(\+0\.\d\d to \+0\.\d\d\)", row[5])
    low, high = decision["interval_95"]
    assert f"+0.23 ({low:+.2f} to {high:+.2f}) dB over RDN" in markdown

    first = decide(BETTER, side(0.0, sha256=""), LIMITS, SOUND).as_dict()
    assert len(harmless(show.scores_markdown(summary, first))[0]) == 6, "bicubic enlargement is no champion"


def test_scores_that_are_infinite(summary: dict[str, Any]) -> None:
    found = json.loads(json.dumps(summary))
    found["sets"]["photos"] |= {"psnr_y": None}
    found["sets"]["photos"]["others"]["bicubic"] |= {"psnr_y": None, "interval_95": {"gain_db": None}}
    (_, row) = harmless(show.scores_markdown(found))
    assert row[2::2] == ["–", "–"]
    assert row[5].endswith("(no interval)")


def test_decision() -> None:
    made = decide(BETTER, CHAMPION, LIMITS, SOUND)
    found = json.loads(json.dumps(made.as_dict())) | {"measured": {"more": 1}}
    markdown = show.decision_markdown(found, ["Whoever answers for the shop runs `approve`."])
    rows = harmless(markdown)
    assert markdown.startswith("May be promoted: RDN ")
    assert len(rows) == 1 + len(made.guards)
    assert {row[3] for row in rows[1:]} == {"ok"}
    assert markdown.endswith("- Whoever answers for the shop runs `approve`.\n")

    images = [dataclasses.replace(one, name=HOSTILE[2]) for one in CHAMPION.images]
    worse = decide(Contender("RDN <b>", "c" * 64, tuple(images), 10.0), CHAMPION, LIMITS, SOUND)
    markdown = show.decision_markdown(worse.as_dict())
    rows = harmless(markdown)
    assert markdown.startswith(r"Refused: RDN \<b\> ")
    by_will = decide(CHAMPION, CHAMPION, LIMITS, SOUND, Override("we *must*", "me")).as_dict()
    assert show.decision_markdown(by_will).startswith("Promoted by override of me: RDN ")
    assert ["gain", "-0.00 dB" if rows[2][1].startswith("-") else "+0.00 dB", "over +0.05 dB", "FAILS"] == rows[2][:4]


def test_record() -> None:
    root = ROOT
    outs = show.outputs(root)
    assert {"data/products", "data/photos", "index", "models", "bundle"} <= outs.keys()
    event = {"event": "promote", "alias": "production", "version": "1.1.0", "from": "1.0.0", "identity": "e" * 64}
    event |= {"by": "<b>me</b>", "reason": "", "moved_at": "2026-01-31T12:00:00Z"}
    markdown = show.record_markdown("a" * 40, outs, event)
    rows = harmless(markdown)
    assert markdown.startswith(f"Version 1.1.0, promote of production; commit `{'a' * 40}`.\n")
    assert ["version before", "1.0.0"] in rows
    assert ["by", "<b>me</b>"] in rows
    assert ["models", outs["models"]] in rows
    assert "|" not in show.record_markdown("a" * 40, {})
    assert show.record_markdown("a" * 40, outs).startswith(f"Commit `{'a' * 40}`.\n")


def test_links() -> None:
    addresses = show.evaluation_links("http://127.0.0.1:4210/run/evaluation/index.html")
    tokens = MarkdownIt().parse(show.links_markdown(addresses))
    links = [child for token in tokens for child in token.children or () if child.type == "link_open"]
    found = [str(link.attrs["href"]) for link in links]
    assert found == [*addresses.values()]
    assert found[1].endswith("index.html#patches")
    assert show.links_markdown({"Contact sheet of the inbox": found[0]}).startswith(
        "To look at: Contact sheet of the inbox."
    )
    zipped = show.evaluation_links("https://bucket.s3.amazonaws.com/run/evaluation.zip?X-Amz-Expires=604800")
    markdown = show.links_markdown(zipped)
    assert len(zipped) == 1
    assert "unpack it and open index.html; the link ends after 7 days at most" in markdown


def test_progress_of_lines() -> None:
    figures = "loss 0.01530, valid 0.01411  PSNR-Y 31.20 dB, valid 31.95 dB (best)  133 patches/s, 22 s left"
    assert show.progress_of(f"step     700/3500  {figures}", "train", 500) == (
        20.0,
        f"train: step 700 of 3500 · epoch 2 of 7 · {figures.replace('  ', ' · ')}",
    )
    assert show.progress_of("step      35/3500  loss 0.1", "train", 500) == (
        1.0,
        "train: step 35 of 3500 · epoch 1 of 7 · loss 0.1",
    )
    assert show.progress_of("picture      12/40  1 failed  3.1 pictures/s, 9 s left", "upscale") == (
        30.0,
        "upscale: picture 12 of 40 · 1 failed · 3.1 pictures/s, 9 s left",
    )
    resumed = "going on from step 1750 of 3500 (runs/0f3a5b7c9d1e)"
    assert show.progress_of(resumed, "train") == (50.0, "train: step 1750 of 3500 · going on")
    assert show.progress_of("picture 3/3", "upscale") == (100.0, "upscale: picture 3 of 3")
    for other in ("Running stage 'train':", "step 1/0", "steps 1/2", "step one/2", ""):
        assert show.progress_of(other, "train") is None


def test_progress_of_what_training_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LINE_EVERY", -1.0)
    point = follow.CurvePoint(5, 0.001, 0.5, 0.4, 30.0, 31.0, 1.0, 0)
    with follow.Follower(tmp_path, steps=10, done=0, batch=8, quiet=False) as follower:
        follower.stepped(3, 0.5)
        follower.validated(point, 5, {})
    plain, validated = (show.progress_of(line, "train", 5) for line in capsys.readouterr().out.splitlines())
    assert plain and validated
    assert (plain[0], validated[0]) == (30.0, 50.0)
    assert re.fullmatch(r"train: step 3 of 10 · epoch 1 of 2 · loss 0.50000 · \d+ patches/s, .+ left", plain[1])
    assert "valid 31.00 dB (best) · " in validated[1]


ALL = """
import json
from pathlib import Path
from prefect import flow
from prefect.client.orchestration import get_client
from flows import show

@flow(name="show-all")
def everything() -> None:
    given = json.loads(Path("given.json").read_text())
    show.rename("show: all | <b>of it</b>")
    show.ingest(given["ingest"])
    show.validation(given["validation"])
    show.drift(given["drift"], 20, ["many"])
    show.scores(given["scores"], given["decision"])
    show.decision(given["decision"], ["Nothing."])
    show.record("a" * 40, Path(given["root"]))
    show.upscaled(given["upscaled"], "out")
    show.links(show.evaluation_links("http://127.0.0.1:4210/run/evaluation/index.html"))
    with show.Progress("training", "train", 500) as bar:
        bar.feed("step     500/3500  loss 0.01530  133 patches/s, 22 s left")
        bar.feed("step    1000/3500  loss 0.01530  133 patches/s, 22 s left")
    with show.Progress("removed", "train") as bar, get_client(sync_client=True) as client:
        client.delete_artifact(bar._artifact)
        bar.feed("step 1/2")
    try:
        with show.Progress("upscaling", "upscale") as bar:
            bar.feed("picture 10/40")
            bar.feed("picture 20/40")
            raise ValueError("stopped")
    except ValueError:
        pass
"""


def test_a_real_server_has_it_all(
    start_flow: Callable[[str, Path], Flow],
    artifacts: Callable[[str], dict[str, dict[str, Any]]],
    ask: Callable[..., Any],
    summary: dict[str, Any],
    tmp_path: Path,
) -> None:
    given = {
        "ingest": Ingested((Taken("<b>", "quarantined", "a" * 64),), (), "1" * 32, "2" * 32).to_json(),
        "validation": {"success": True, "critical": 0, "warning": 0, "sets": {}},
        "drift": json.loads(drift_json(compare(facts(40, 0), facts(30, 50), min_batch=20, draws=200))),
        "scores": summary,
        "decision": decide(BETTER, CHAMPION, LIMITS, SOUND).as_dict(),
        "root": str(ROOT),
        "upscaled": {
            **{"done": 1, "skipped": 2, "failed": 1, "left": 0, "stopped": "", "model": {"sha256": "f" * 64}},
            **{"pictures_per_second": 3.0, "megapixels_per_second": 1.5},
            "failures": [{"source": "a|b.png", "reason": "refused: empty"}],
        },
    }
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "everything.py").write_text(ALL)
    process = start_flow("everything:everything", tmp_path)
    ended = process()
    assert ended.type == "COMPLETED", ended.message
    assert "removed cannot be shown" in process.log()
    assert ask("GET", f"/flow_runs/{ended.run}")["name"] == "show: all | <b>of it</b>"
    found = artifacts(ended.run)
    texts = {"ingest", "validation", "drift", "scores", "decision", "record", "upscaled", "links"}
    assert found.keys() == texts | {"training", "upscaling"}
    assert {found[key]["type"] for key in texts} == {"markdown"}
    assert all(found[key]["description"] for key in found)
    verdict, body = show.decision_markdown(given["decision"], ["Nothing."]).strip().split("\n\n", 1)
    assert (found["decision"]["description"], found["decision"]["data"]) == (verdict, body)
    assert found["ingest"]["description"].startswith("Of 1 pictures 0 accepted, 1 in quarantine")
    assert (found["training"]["type"], found["training"]["data"]) == ("progress", 100.0)
    assert found["training"]["description"].startswith("train: step 1000 of 3500 · epoch 2 of 7")
    assert found["training"]["description"].endswith("done")
    assert found["upscaling"]["data"] == 50.0
    assert found["upscaling"]["description"] == "upscale: picture 20 of 40 · ended early"


NOBODY = """
from prefect.logging import disable_run_logger
from flows import show

with disable_run_logger():
    show.links({"report": "http://127.0.0.1:4210/index.html"})
    with show.Progress("training", "train") as bar:
        bar.feed("step 1/2")
print("went on")
"""


def test_without_a_server_the_run_goes_on(prefect_env: dict[str, str], tmp_path: Path) -> None:
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}  # nobody listens there
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", NOBODY]
    done = subprocess.run(
        command, cwd=tmp_path, env=prefect_env | paths | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "went on\n", done.stderr


def test_machines_are_shown_with_what_they_cost() -> None:
    attempt = {
        "instance": "i-1", "type": "g5.xlarge", "market": "spot", "zone": "us-east-1a", "price": 0.4,
        "began": "2026-01-31T12:00:00Z", "ended": "2026-01-31T13:00:00Z", "outcome": "done <b>",
    }  # fmt: skip
    asked = attempt | {"instance": "", "outcome": "no capacity"}
    shown = show.machines_markdown({"usd": 0.4, "attempts": [asked, attempt], "estimate": {"usd": 1.25}})
    assert shown.startswith("**0.40 USD** for training on EC2; estimated were 1.25.")
    assert shown.count("g5.xlarge") == 1
    assert "<b>" not in shown
    assert "No machine" in show.machines_markdown({"usd": 0.0, "attempts": [], "estimate": None})
