"""The forms of the UI, which Prefect makes of docstrings and types."""

from pathlib import Path
from typing import Any, get_args

import pytest
from prefect import Flow

from flows.catalogue import upscale_catalogue
from flows.evaluate import evaluate_and_report
from flows.inbox import watch_inbox
from flows.reap import reap
from flows.release import approve, rollback
from flows.retrain import AS_COMMITTED, Profile, retrain
from loupe.params import profile_names

ROOT = Path(__file__).parents[2]
FLOWS = [retrain, approve, rollback, evaluate_and_report, upscale_catalogue, watch_inbox, reap]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
def test_every_field_is_explained(flow: Flow[..., Any]) -> None:
    fields = flow.parameters.model_dump()["properties"]
    assert fields
    assert all(field["description"].endswith(".") for field in fields.values()), "of the docstring's Args"
    assert len(flow.description or "") > 80


def test_all_profiles_can_be_chosen() -> None:
    assert set(get_args(Profile)) == {AS_COMMITTED, *profile_names(ROOT / "profiles")}
