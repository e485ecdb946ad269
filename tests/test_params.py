"""params.yaml: mistakes are named with their key, the allowed values and the file."""

import re
from pathlib import Path

import pytest

from loupe.params import ParamsError, PhotosPath, PhotosUrl, apply_profile, change_params, load_params

ROOT = Path(__file__).parents[1]
GOOD = (ROOT / "profiles" / "sample.yaml").read_text()


def load(folder: Path, text: str) -> None:
    (folder / "params.yaml").write_text(text)
    load_params(folder / "params.yaml")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            ("  batch: 8", "  batch: 8\n  bacth: 8"),
            r"unknown key 'train.bacth'. Did you mean 'batch'\? Allowed here: seed",
        ),
        (("scale: 2", "scale: 2\nzzz: 1"), r"unknown key 'zzz'. Allowed here: photos, valid_share, scale"),
        (("  loss: l1", "  loss: l3"), r"train.loss = 'l3': input should be 'l1', 'mse' or 'charbonnier'"),
        (
            ("photos: sample", "photos: flickr"),
            r"photos = 'flickr': choose sample, div2k, \{path: FOLDER\} or \{url: ADDRESS\}",
        ),
        (("photos: sample", "photos: [sample]"), r"photos = \['sample'\]: choose sample, div2k"),
        (("photos: sample", "photos: {pth: own}"), r"photos = \{'pth': 'own'\}: give one of \{path: FOLDER\} and"),
        (("photos: sample", "photos: {}"), r"photos = \{\}: give one of"),
        (("photos: sample", "photos: {path: a, url: https://b}"), r"photos = .*: give one of \{path: FOLDER\} and"),
        (("photos: sample", "photos: {path: 3}"), r"photos = \{'path': 3\}: the path must be a text"),
        (("photos: sample", "photos: {url: ftp://b/a.zip}"), r"the url must begin with https://, http:// or s3://"),
        (("photos: sample", "photos: {url: 's3:///'}"), r"begin with https://, http:// or s3://, and name a place"),
        (("  lr: 0.002", "  lr: -1"), r"train.lr = -1: input should be greater than 0"),
        (("scale: 2", "scale: 9"), r"scale = 9: input should be less than or equal to 4"),
        (("  D: 4", "  D: four"), r"model.D = 'four': input should be a valid integer"),
        (("  D: 4", "  D: 4.5"), r"model.D = 4.5: input should be a valid integer"),
        (("  steps: 3500", "  steps: yes please"), r"train.steps = 'yes please'"),
        (("  G0: 32", "  # G0: 32"), r"the key 'model.G0' is missing"),
        (("patches:\n", "patches: 3\npatchez:\n"), r"patches = 3: input should be"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, wrong: tuple[str, str], message: str) -> None:
    assert wrong[0] in GOOD
    with pytest.raises(ParamsError, match=message) as caught:
        load(tmp_path, GOOD.replace(*wrong))
    assert f"{tmp_path / 'params.yaml'}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample", "sample"),
        ("div2k", "div2k"),
        ("{path: ../own pictures}", PhotosPath("../own pictures")),
        ("{url: 'https://example.org/a.zip?b=c'}", PhotosUrl("https://example.org/a.zip?b=c")),
        ("{url: s3://bucket/some/prefix}", PhotosUrl("s3://bucket/some/prefix")),
    ],
)
def test_where_photographs_may_come_from(tmp_path: Path, text: str, expected: object) -> None:
    (tmp_path / "params.yaml").write_text(GOOD.replace("photos: sample", f"photos: {text}"))
    assert load_params(tmp_path / "params.yaml").photos == expected


def test_several_mistakes_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, GOOD.replace("  loss: l1", "  loss: l3").replace("scale: 2", "scale: 9"))
    assert len(str(caught.value).splitlines()) == 2


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    for text, message in (("a: [1", "not YAML"), ("- 1", "expected keys and values"), ("", "expected keys and values")):
        with pytest.raises(ParamsError, match=message):
            load(tmp_path, text)


def test_a_profile_is_laid_over_the_sample_and_keeps_its_comments(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "sample.yaml").write_text(GOOD)
    (profiles / "long.yaml").write_text("# Trains for longer.\ntrain:\n  steps: 77\n")
    (profiles / "wrong.yaml").write_text("train:\n  stepz: 77\n")
    target = tmp_path / "params.yaml"
    params = apply_profile("long", profiles, target)
    assert params.train.steps == 77
    assert params.train.batch == 8
    text = target.read_text()
    assert text.startswith("# Trains for longer.\n")
    assert "# residual dense blocks" in text
    assert load_params(target) == params
    with pytest.raises(ParamsError, match=r"wrong.yaml: unknown key 'train.stepz'. Did you mean 'steps'"):
        apply_profile("wrong", profiles, target)
    with pytest.raises(ParamsError, match="no profile 'nope'; choose one of long, sample, wrong"):
        apply_profile("nope", profiles, target)
    assert target.read_text() == text
    apply_profile("sample", profiles, target)
    assert target.read_text() == GOOD


def test_single_keys_are_changed_and_comments_stay(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    target.write_text(GOOD)
    params = change_params({"train.steps": "70", "train.init": "champion/1.4.0", "scale": "3"}, target)
    assert (params.train.steps, params.train.init, params.scale) == (70, "champion/1.4.0", 3)
    assert load_params(target) == params
    before, after = GOOD.splitlines(), target.read_text().splitlines()
    assert len(before) == len(after)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 3


def test_changes_are_laid_over_a_profile(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    params = apply_profile("smoke", ROOT / "profiles", target, {"train.steps": "7"})
    assert (params.model.D, params.train.steps) == (1, 7)
    assert load_params(target) == params


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.stepz", "7", "unknown key 'train.stepz'. Did you mean 'steps'"),
        ("trian.steps", "7", "unknown key 'trian.steps'"),
        ("scale.steps", "7", "unknown key 'scale.steps'"),
        ("train.steps", "many", "train.steps = 'many'"),
        ("train.steps", "[", "train.steps = [: not YAML"),
    ],
)
def test_a_wrong_change_is_explained_and_changes_nothing(tmp_path: Path, key: str, value: str, message: str) -> None:
    target = tmp_path / "params.yaml"
    target.write_text(GOOD)
    with pytest.raises(ParamsError, match=re.escape(message)):
        change_params({key: value}, target)
    assert target.read_text() == GOOD
