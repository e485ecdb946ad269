"""dvc.yaml and params.yaml against the code: a missing dependency would make `dvc repro` keep a stale result."""

from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from loupe.params import apply_profile, load_params, profile_names

ROOT = Path(__file__).parents[2]
RECIPE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
# They check and report, but shape no result: a new key or a better message must not retrain.
NEUTRAL = {"loupe", "loupe.errors", "loupe.params", "loupe.stages", "loupe.stages.running"}
# They decide whether the recipe runs and where its result goes: read by a stage, a changed limit would retrain.
UNSTAGED = {"retrain", "promotion"}


def listed_modules(stage: str) -> set[str]:
    """The loupe modules among the dependencies of `stage`; a folder stands for all modules below it."""
    modules = set()
    for dep in RECIPE["stages"][stage]["deps"]:
        if dep.startswith("src/"):
            path = ROOT / dep
            assert path.exists(), f"{stage}: {dep} is listed but does not exist"
            files = path.rglob("*.py") if path.is_dir() else [path] if path.suffix == ".py" else []
            modules |= {".".join(file.relative_to(ROOT / "src").with_suffix("").parts) for file in files}
    return {module.removesuffix(".__init__") for module in modules}


@pytest.mark.parametrize("stage", RECIPE["stages"])
def test_a_stage_lists_exactly_the_modules_it_imports(stage: str) -> None:
    graph = grimp.build_graph("loupe", cache_dir=None)
    module = f"loupe.stages.{stage.replace('-', '_')}"
    imported = graph.find_upstream_modules(module) | {module}
    packages = {name for name in graph.modules if (ROOT / "src" / Path(*name.split("."))).is_dir()}
    assert listed_modules(stage) - packages == imported - NEUTRAL - packages


def test_params_yaml_is_the_sample_profile() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "sample.yaml").read_bytes()


@pytest.mark.parametrize("name", profile_names(ROOT / "profiles"))
def test_every_profile_is_valid(name: str, tmp_path: Path) -> None:
    params = apply_profile(name, ROOT / "profiles", tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml") == params


def test_every_stage_parameter_exists() -> None:
    known = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    used = {key.split(".")[0] for stage in RECIPE["stages"].values() for key in stage.get("params", [])}
    assert used == set(known) - UNSTAGED, "every section of params.yaml is read by a stage, and the other way round"
