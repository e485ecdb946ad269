"""The facts of many image files as one table: a row a file, in order.

>>> frame = measure_all(Path("data/products"))                      # doctest: +SKIP
>>> frame[~frame["decodable"]][["path", "error"]]                   # doctest: +SKIP
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from loupe.errors import InputError
from loupe.imaging.facts import Facts, measure, refused
from loupe.imaging.files import atomic_file, find_images
from loupe.names import leads_out
from loupe.threads import in_order

_KINDS = {"bool": "bool", "int": "int64", "float": "float64", "str": "str"}
DTYPES = {"path": "str"} | {field.name: _KINDS[str(field.type)] for field in fields(Facts)}
SUFFIXES = (".parquet", ".csv")


def measure_all(
    folder: Path,
    files: Iterable[Path] | None = None,
    *,
    follow_links: bool = False,
    progress: Callable[[], object] = lambda: None,
    workers: int | None = None,
) -> pd.DataFrame:
    """The facts of all pictures in `folder`, on all cores; memory holds two pictures a core.

    Args:
        folder: where they lie.
        files: paths below `folder` to measure, whatever they are; without it, what `find_images` gives: files with an
            image's suffix, but no hidden ones.
        follow_links: also measure what a link leads to outside of `folder`. DVC keeps its files as such links where
            `cache.type` is `symlink`; in what comes from others, a link is a way to read a file that is not theirs.
        progress: called after each file.
        workers: threads; all cores without it.

    Returns:
        A row a file, in order, with the columns and types DTYPES: `path`, below `folder` as `shown`, then the
        fields of `Facts`. A file that cannot be decoded has a row
        too, which says why.

    Raises:
        ImageError: there is no such folder.
    """

    def facts(path: Path) -> Facts:
        if not follow_links and leads_out(path, folder):
            return refused("refused: a link out of the folder; put the picture itself there")
        return measure(path)

    rows: list[dict[str, Any]] = []
    paths = find_images(folder) if files is None else list(files)
    threads = workers or len(os.sched_getaffinity(0))
    with warnings.catch_warnings():  # reading does this for each file, but threads would undo it for one another
        warnings.simplefilter("ignore")
        for path, found in zip(paths, in_order(facts, paths, threads, ahead=2 * threads), strict=True):
            rows.append({"path": shown(path.relative_to(folder)), **asdict(found)})
            progress()
    return pd.DataFrame(rows, columns=list(DTYPES)).astype(DTYPES)


def shown(path: Path) -> str:
    """A relative path as text that can be stored anywhere: with `/`, and bytes that are no UTF-8 as `\\xXX`."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as `path`, whole or not at all: .parquet, which keeps all types, or .csv.

    Raises:
        InputError: the suffix is another one, or pyarrow is not installed.
    """
    check_table_name(path)
    with atomic_file(path) as stream:
        if path.suffix == ".csv":
            frame.to_csv(stream, index=False)
            return
        try:
            frame.to_parquet(stream, index=False)
        except ImportError:
            raise InputError(f"{path}: Parquet needs pyarrow: pip install 'loupe[pipeline]', or choose .csv") from None


def check_table_name(path: Path) -> None:
    """Refuse, before the work is done, a `path` that `write_table` and `read_table` would refuse for its suffix.

    Raises:
        InputError: neither .parquet nor .csv.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a table is written as {' or '.join(SUFFIXES)}; choose one of these suffixes")


def read_table(path: Path) -> pd.DataFrame:
    """The facts in a file that `write_table` wrote.

    Raises:
        InputError: there is no such file, it is no table, or holds no facts.
    """
    check_table_name(path)
    kept: dict[str, Any] = {"keep_default_na": False, "float_precision": "round_trip"}  # a picture may be called NA
    floats = {name: [""] for name, kind in DTYPES.items() if kind == "float64"}
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=DTYPES, na_values=floats, **kept)
        else:
            frame = pd.read_parquet(path)
        facts: pd.DataFrame = frame[list(DTYPES)].astype(DTYPES)
        return facts
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install 'loupe[pipeline]', or give a .csv") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no table of facts ({error}); write it with `loupe facts --out`") from None


def summarise(frame: pd.DataFrame) -> dict[str, Any]:
    """What a table of facts holds, for JSON.

    Returns:
        files: number. undecodable: {path: error}. formats: {format: number}. facts: of the pictures that could be
        decoded {fact: {min, median, max}}, numbers; a fact that none of them has is left out.
    """
    good = frame[frame["decodable"]]
    numeric = good.select_dtypes("number").dropna(axis=1, how="all")
    bad = frame[~frame["decodable"]]
    return {
        "files": len(frame),
        "undecodable": dict(zip(bad["path"], bad["error"], strict=True)),
        "formats": {str(name): int(count) for name, count in good["format"].value_counts().items()},
        "facts": {
            str(name): {how: float(getattr(column, how)()) for how in ("min", "median", "max")}
            for name, column in numeric.items()
        },
    }


def summary_table(summary: dict[str, Any]) -> str:
    """`summarise`d facts as a text table."""
    from tabulate import tabulate

    formats = ", ".join(f"{count} {name}" for name, count in summary["formats"].items())
    rows = [(name, *(f"{value:.5g}" for value in found.values())) for name, found in summary["facts"].items()]
    table = tabulate(rows, ("fact", "min", "median", "max"), disable_numparse=True, colalign=("left", *["right"] * 3))
    failed = f"; {len(summary['undecodable'])} cannot be decoded" if summary["undecodable"] else ""
    return f"{summary['files']} files: {formats or 'no pictures'}{failed}" + (f"\n\n{table}" if rows else "")
