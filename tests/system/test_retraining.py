"""The loop as a shop lives it, from the first model to going back: every server is a real one, on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import S3
from tests.system.shop import RUN, Shop, photographs, until


def alias(shop: Shop) -> dict[str, Any]:
    """What production names."""
    body = shop.s3.client.get_object(Bucket=shop.s3.bucket, Key="releases/aliases/production.json")["Body"]
    return dict(json.loads(body.read()))


@pytest.mark.timeout(1500)
def test_the_whole_journey(tmp_path: Path, s3: S3) -> None:
    shop = Shop(tmp_path, s3)
    with shop.up():
        # 1. there is no champion yet, which is reason enough; nobody is asked
        run = shop.finish("retrain", promote="auto")
        assert run["state_name"] == "Promoted", shop.story(run["id"])
        assert run["name"] == "retrain: there is no champion yet"
        assert alias(shop)["version"] == "1.0.0"
        shown = shop.artifacts(run["id"])
        assert {"training", "validation", "scores", "decision", "record", "links"} <= shown.keys()
        assert shop.is_untouched(), "the checkout and the branch of people stay as they are"
        landed = shop.git("ls-remote", "origin", "main").split()[0]
        assert landed != shop.git("rev-parse", "HEAD")
        assert shop.git("ls-remote", "origin", "refs/tags/rdn-x2@v1.0.0^{}").split()[0] == landed
        shop.update()
        assert json.loads((shop.folder / "metrics/evaluate.json").read_text())["sets"].keys() == {"photos", "products"}

        # 2. new images arrive, of another kind; the watcher reports them, and a run begins by itself, which asks
        going_on = ("train.init=champion", "model.C=1", "train.steps=160", "train.validate_every=80")  # it has C=2
        shop.settings(*going_on, "retrain.new_images=1000")
        shop.run("dvc", "repro", "download")  # photographs, to cut pictures from
        photographs(shop.folder / "data/photos", shop.folder / "inbox", 24)
        shop.settled = shop.fingerprint()
        shop.finish("watch-inbox", settle=0)
        until(RUN, lambda: len(shop.runs_of("retrain")) == 2, shop.logs)
        run = shop.end_of(shop.runs_of("retrain")[1]["id"])
        assert run["state_name"] == "AwaitingApproval", shop.story(run["id"])
        assert run["name"].startswith("retrain: drift in "), run["name"]
        assert run["parameters"]["inbox"].endswith("inbox")
        shown = shop.artifacts(run["id"])
        assert {"ingest", "drift", "training", "scores", "decision", "links"} <= shown.keys()
        assert "24" in shown["ingest"]
        assert alias(shop)["version"] == "1.0.0"

        # 3. a person approves while nothing can be pushed to origin: the alias, which has moved by then, goes back
        branch = run["state"]["message"].rsplit(" ", 1)[-1]
        shop.git("remote", "set-url", "--push", "origin", str(shop.folder / "gone.git"))
        run = shop.finish("approve", run=branch, by="Ada")
        assert run["state_type"] == "FAILED", shop.story(run["id"])
        assert (alias(shop)["version"], alias(shop)["event"]) == ("1.0.0", "rollback")
        shop.git("remote", "set-url", "--push", "origin", str(shop.origin))

        # 4. and again; training went on from version 1.0.0, as the record tells
        run = shop.finish("approve", run=branch, by="Ada", reason="looks good")
        assert run["state_name"] == "Promoted", shop.story(run["id"])
        moved = alias(shop)
        assert (moved["version"], moved["from"], moved["by"], moved["reason"]) == (
            "1.1.0",
            "1.0.0",
            "Ada",
            "looks good",
        )
        params = shop.git("show", f"retrain/{branch}:params.yaml")
        assert "init: champion/1.0.0" in params
        assert "  C: 2" in params, "the recipe's network is the champion's"
        assert shop.is_untouched()

        # 5. the same images again start nothing, and a run by hand sees that nothing is new
        photographs(shop.folder / "data/photos", shop.folder / "inbox", 24)
        shop.finish("watch-inbox", settle=0)
        run = shop.finish("retrain")
        assert run["state_name"] == "NotNeeded", shop.story(run["id"])
        assert "no new images" in run["name"]
        assert len(shop.runs_of("retrain")) == 3

        # 6. a worse recipe is refused, on record, and is not tried twice
        shop.update()
        shop.settings("train.init=null", "train.steps=2", "train.validate_every=2", "retrain.new_images=1")
        photographs(shop.folder / "data/photos", shop.folder / "inbox", 3, first=24)
        run = shop.finish("retrain", promote="auto")
        assert run["state_name"] == "Refused", shop.story(run["id"])
        assert "gain" in run["state"]["message"]
        assert alias(shop)["version"] == "1.1.0"
        run = shop.finish("retrain", promote="auto")
        assert run["state_name"] == "NotNeeded", shop.story(run["id"])
        assert "judged before" in run["name"]

        # 7. and back
        run = shop.finish("rollback", reason="edges look odd", by="Ada")
        assert run["state_name"] == "RolledBack", shop.story(run["id"])
        assert alias(shop)["version"] == "1.0.0"
        assert shop.git("ls-remote", "origin", "refs/tags/rdn-x2#production#5")
    history = json.loads(shop.run("loupe", "registry", "history", "--json"))
    assert [event["event"] for event in history] == ["promote", "promote", "rollback", "promote", "rollback"]
    assert "all is well" in shop.run("loupe", "registry", "verify")
    assert not list((shop.folder / ".cache/flows/worktrees").glob("*")), "every run has taken its worktree away"
