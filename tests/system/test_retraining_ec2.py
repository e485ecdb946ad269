"""The flow `retrain`, ordered in the UI by a browser, with the training on a rented machine."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Response, expect
from tests.browser import chromium
from tests.conftest import S3
from tests.system.gate import Gate, client
from tests.system.hypervisor import Hypervisor, account, bake
from tests.system.shop import Shop, until
from tests.system.test_ec2 import FAST, POLICY, PRICES, ZONES

pytestmark = pytest.mark.timeout(900)


def order(shop: Shop, name: str, choices: dict[str, str]) -> str:
    """Start a run as people do: open the form of a deployment, choose other values for those shown, submit; its id."""
    known = {run["id"] for run in shop.runs_of(name)}

    refused: list[str] = []  # by the server, whose database can be busy; its page says so and leaves it at that

    def answered(response: Response) -> None:
        if response.status >= 500 and response.request.method == "POST":
            refused.append(f"{response.status} {response.url}")

    def fresh() -> set[str]:
        return {run["id"] for run in shop.runs_of(name)} - known

    def begun() -> set[str]:
        found = fresh()
        page.wait_for_timeout(100)  # lets `answered` be called
        if not found and refused:
            print("submitted again after", *refused)
            refused.clear()
            submit.click()
        return found

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1400})
        page.on("response", answered)
        server = shop.api.removesuffix("/api")
        page.goto(f"{server}/deployments/deployment/{shop.deployment(name)['id']}/run")
        for shown, wanted in choices.items():
            page.get_by_role("button", name=shown, exact=True).press("ArrowDown", timeout=60_000)
            page.get_by_role("option", name=wanted, exact=True).click()
            expect(page.get_by_role("button", name=wanted, exact=True)).to_be_visible()
        submit = page.get_by_role("button", name="Submit")
        refused.clear()
        submit.click()
        until(60, begun, page.locator("body").inner_text)
    (run,) = fresh()
    return run


def test_training_on_ec2_is_a_choice_in_the_form(s3_endpoint: str, tmp_path: Path) -> None:
    with Gate(s3_endpoint) as gate:
        gate.spot_prices(PRICES)
        gate.offerings(ZONES)
        there = account(gate.upstream, f"shop-{uuid4().hex[:8]}")
        s3 = S3(gate.url, there.bucket, client("s3", gate.upstream, there.region))
        shop = Shop(tmp_path, s3, PREFECT_SERVER_UI_ENABLED="true", **FAST)
        policy = POLICY.format(parameter=there.parameter, image=there.image, budget=20, hours=12, losses=3)
        (shop.folder / "ec2.yaml").write_text(policy)
        shop.commit("Set the policy")
        lock = shop.folder / "requirements.lock"
        with (
            Hypervisor(
                gate, there.project, tmp_path / "machines", speed=30, image=lambda home: bake(home, lock)
            ) as machines,
            shop.up(),
        ):
            run = order(shop, "retrain", {"local": "ec2", "ask": "never"})
            assert {"compute": "ec2", "promote": "never"}.items() <= shop.state(run)["parameters"].items()
            ended = shop.end_of(run)
            assert ended["state_name"] == "Judged", shop.story(ended["id"]) + machines.describe()
            shown = shop.artifacts(ended["id"])
            assert "USD** for training on EC2" in shop.verdicts(ended["id"])["machines"]
            assert "g5.xlarge" in shown["machines"]
            assert float(shown["training"]) == 100
            (machine,) = machines.machines()
            assert machine.ended in ("shutdown", "terminated")
            assert machines.left() == {}
            branch = f"retrain/{next((shop.folder / '.git/refs/heads/retrain').glob('*')).name}"
            lock_file = shop.git("show", f"{branch}:dvc.lock")
            assert "models" in lock_file
            reaped = shop.finish("reap")
            assert reaped["state_type"] == "COMPLETED", shop.story(reaped["id"])
            assert shop.is_untouched()
        assert json.loads(s3.client.get_object(Bucket=there.bucket, Key=_result(s3))["Body"].read())["attempt"] == 1


def _result(s3: S3) -> str:
    """The key of the result that the machine has left."""
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix="ec2/runs/")
    (key,) = [one["Key"] for page in pages for one in page["Contents"] if one["Key"].endswith("/result.json")]
    return str(key)
