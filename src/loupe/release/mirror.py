"""A copy of a version in an MLflow registry, for those who look for models there. The release store stays the truth.

    experiment rdn-x2: run `rdn-x2 1.4.0`         bundle/ as artifacts, scores as metrics, lineage as tags
    registered model rdn-x2: version 3            tags loupe.version 1.4.0, loupe.identity <sha256 of the manifest>
    alias production: version 3                   if ours names 1.4.0

All that is asked of MLflow is whether a copy is there. To MLflow a bundle is a folder of files and no model of a
flavour, so nothing is pickled. Needs the extra `mlflow`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loupe.errors import InputError
from loupe.release.pull import find, pull
from loupe.release.registry import PRODUCTION, describe
from loupe.release.store import Store
from loupe.release.tags import ARTIFACT
from loupe.release.triton import check_name
from loupe.release.versions import NUMBER, Event, Say, read_alias

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIGURES = ("psnr_y", "ssim_y", "gain_db")  # of each set in metrics.json
SETTINGS = {  # unless the environment says otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",  # of DO_NOT_TRACK it heeds `true` only, not 1
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 14 s; its own 7 keep one waiting for minutes at a mistyped address
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # each copy would be told twice
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MirrorError(InputError):
    """The MLflow server cannot be used, or refuses; the message names it and what to do."""


@dataclass(frozen=True)
class Mirrored:
    """What `mirror` did.

    model, number: the registered model and its version, as MLflow counts. copied: whether it was registered just now.
    alias: what was set to it in MLflow; None if nothing was.
    """

    version: str
    identity: str
    model: str
    number: str
    copied: bool
    alias: str | None


def mirror(
    store: Store,
    uri: str,
    name: str = PRODUCTION,
    *,
    model: str = ARTIFACT,
    alias: str | None = None,
    say: Say = print,
) -> Mirrored:
    """Copy a version into an MLflow registry, unless it is there, and let MLflow's alias name what ours names.

    A copy that dies leaves a run without a registered version; the next one begins anew. Of two at once, both of which
    copy, the first registered version stays.

    Args:
        store: where from.
        uri: of the MLflow server, http or https. Credentials come from MLflow's own variables.
        name: what is copied: the number of a version, or an alias.
        model: the registered model in MLflow, and the experiment of its runs; made where it is missing.
        alias: what is set in MLflow; None for `name` if that is an alias, else for `production`. It is left as it is
            where ours names another version than the one copied.
        say: receives what is done.

    Returns:
        Where the copy is.

    Raises:
        RegistryError, StoreError, ManifestError: the version is not in the store, or is not what it should be.
        MirrorError: MLflow is not installed, not reached, or refuses. InputError: the model cannot be called so.
    """
    check_name(model)
    if alias:
        find(store, alias)  # one that was never set is a slip
    else:
        alias = PRODUCTION if re.fullmatch(NUMBER, name) else name
    record = describe(store, name)
    version, identity = record["version"], record["identity"]
    client = _client(uri)
    with _told(uri):
        numbers = _numbers(client, model, identity)
        copied = False
        if not numbers:
            say(f"{uri}: version {version} is copied")
            own = _copy(client, store, record, model, say)
            numbers = _numbers(client, model, identity)
            copied = numbers[0] == own
            if not copied:  # another mirror was quicker, or our request was heard twice
                client.delete_model_version(model, own)
        present = read_alias(store, alias)  # only now: it may have been moved while files travelled
        if named := present is not None and present.identity == identity:
            client.set_registered_model_alias(model, alias, numbers[0])
        else:
            say(f"{alias}: names {_called(present)}, not {version}; in MLflow it is left as it is")
    return Mirrored(version, identity, model, numbers[0], copied, alias if named else None)


def _copy(client: MlflowClient, store: Store, record: Mapping[str, Any], model: str, say: Say) -> str:
    """Bring the files into a run, and register what they are; that comes last, so what is registered is whole.

    Returns:
        The number that MLflow gave the version.
    """
    ours = {"loupe.version": record["version"], "loupe.identity": record["identity"]}
    told = {f"loupe.{key}": record[key] for key in ("commit", "by", "registered_at")}
    with TemporaryDirectory(prefix="loupe-") as folder:
        bundle = Path(folder) / "bundle"
        pull(store, bundle, record["version"], say)
        tags = ours | told | {_key(key): value for key, value in _leaves("lineage", _content(bundle / "lineage.json"))}
        run = client.create_run(_experiment(client, model), tags=tags, run_name=f"{model} {record['version']}").info
        try:
            client.log_artifacts(run.run_id, str(bundle), "bundle")
            for key, value in _metrics(_content(bundle / "metrics.json").get("sets")).items():
                client.log_metric(run.run_id, key, value)
        except BaseException:
            with suppress(Exception):  # what stopped us is told, not that this could not be
                client.set_terminated(run.run_id, "FAILED")
            raise
    client.set_terminated(run.run_id)
    registered = client.create_model_version(
        model,
        f"{run.artifact_uri}/bundle",
        run.run_id,
        tags=ours,
        description=f"Version {record['version']} of loupe's release store, which decides what it is; this is a copy.",
    )
    return str(registered.version)


def _client(uri: str) -> MlflowClient:
    """A client of the server; nothing is asked yet."""
    if "@" in uri:
        raise MirrorError(
            "credentials do not belong into the address of an MLflow server: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    try:
        parts = urlsplit(uri)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no number as port, or brackets without an address
        known = False
    if not known or re.search(r"\s", uri):
        raise MirrorError(f"{uri!r}: no address of an MLflow server; it looks like http://HOST:5000")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MirrorError(f"{uri}: MLflow needs the extra `mlflow`: pip install 'loupe[mlflow]'") from None
    return MlflowClient(uri, uri)


def _numbers(client: MlflowClient, model: str, identity: str) -> list[str]:
    """The versions under which MLflow has this bundle, the first registered first."""
    found = client.search_model_versions(f"name = '{model}' and tags.`loupe.identity` = '{identity}'")
    return sorted((str(one.version) for one in found), key=int)


def _experiment(client: MlflowClient, model: str) -> str:
    """The experiment that runs go to, after the registered model, each made where it is missing; its id."""
    from mlflow.exceptions import MlflowException

    for make in (client.create_registered_model, client.create_experiment):
        try:
            make(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    return str(client.get_experiment_by_name(model).experiment_id)


def _metrics(sets: Any) -> dict[str, float]:
    """The scores by set, such as photos/psnr_y; only what is a finite number."""
    return {
        _key(f"{name}/{figure}"): float(scores[figure])
        for name, scores in (sets.items() if isinstance(sets, dict) else ())
        for figure in FIGURES
        if isinstance(scores, dict) and type(scores.get(figure)) in (int, float) and math.isfinite(scores[figure])
    }


def _content(path: Path) -> dict[str, Any]:
    """A JSON file of a bundle; empty where it has none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each value with its path, such as lineage.stages.train.params.model.D; null is left out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif value is not None:
        yield key, value if isinstance(value, str) else json.dumps(value)


def _key(text: str) -> str:
    """As MLflow lets metrics and tags be called."""
    return re.sub(r"[^\w./ -]", "_", text)


def _called(event: Event | None) -> str:
    return event.version if event else "nothing"


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Let what MLflow raises be told as ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ImportError) as error:  # of requests, or of a client for where artifacts lie
        raise MirrorError(
            f"{uri}: {' '.join(str(error).split())}; check the address, that the server runs, and "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN, then run again"
        ) from None
