"""What the Prefect UI shows of a run: each function makes one artifact of what a command of loupe printed.

    show.drift(json.loads(printed), min_batch=20)       # the artifact `drift` of this run, as Markdown
    with show.Progress("training", "train") as bar:     # a bar that moves
        workspace.dvc("repro", "train", say=bar.feed)

All but the bars is Markdown, for the UI's own tables cut what is long and show ten rows; its first paragraph is the
verdict, which the list of a run's artifacts shows. The functions `*_markdown` are pure. Names and messages that come
from strangers go through `code` or `text`, so that none can be a link, HTML, or another cell. What cannot be shown
because the server is away stops nothing: a trained model is worth more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from tabulate import tabulate

from flows.publish import is_zip
from loupe.names import printable

MOST = 50  # rows about single pictures; all of them are in the report
LONGEST = 60  # characters of a name, or of a word
EVERY = 5.0  # seconds between two looks of a bar

Found = Mapping[str, Any]  # what a command printed as JSON

# ------------------------------------------------------------------------------------------------ progress

LINE = re.compile(r"(?P<unit>step|picture)\s+(?P<done>\d+)/(?P<total>\d+)(?:\s+(?P<rest>\S.*))?")
RESUMED = re.compile(r"(?P<rest>going on) from (?P<unit>step) (?P<done>\d+) of (?P<total>\d+) .*")


class Progress:
    """A bar of the UI, in percent, fed with the lines of training or of `loupe upscale`; other lines are no news.

    It ends at 100 when the block ends well, else it stays where it was.

    Args:
        key: of the artifact.
        title: what is done.
        epoch: steps of an epoch, from one validation to the next; 0: there are none.
    """

    def __init__(self, key: str, title: str, epoch: int = 0) -> None:
        self._key, self._title, self._epoch = key, title, epoch
        self._percent, self._text = 0.0, title
        self._artifact: UUID | None = None
        self._shown = 0.0

    def __enter__(self) -> Progress:
        with _whatever_the_server_says(self._key):
            created = create_progress_artifact(self._percent, key=self._key, description=self._text)
            self._artifact = cast(UUID, created)  # no coroutine: nothing here is asynchronous
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._percent = 100.0
        self._text += " · done" if kind is None else " · ended early"
        self._show()

    def feed(self, line: str) -> None:
        """Take a line."""
        found = progress_of(line, self._title, self._epoch)
        if found:
            self._percent, self._text = found
            if time.monotonic() - self._shown >= EVERY:
                self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._artifact:
            with _whatever_the_server_says(self._key):
                update_progress_artifact(self._artifact, self._percent, description=self._text)


def progress_of(line: str, title: str, epoch: int = 0) -> tuple[float, str] | None:
    """Percent and text of a line about progress, such as `step     500/3500  loss 0.0153  133 patches/s, 22 s left`.

    Args:
        line: as it was printed.
        title: what is done.
        epoch: steps of an epoch; 0: there are none.

    Returns:
        None for a line about something else.
    """
    found = LINE.fullmatch(line.strip()) or RESUMED.fullmatch(line.strip())
    if not found or int(found["total"]) == 0:
        return None
    done, total = int(found["done"]), int(found["total"])
    epochs = [f"epoch {_up(done, epoch)} of {_up(total, epoch)}"] if epoch else []
    rest = [text(part) for part in re.split(r"\s{2,}", found["rest"] or "") if part]
    return min(100.0, 100 * done / total), " · ".join([f"{title}: {found['unit']} {done} of {total}", *epochs, *rest])


def _up(count: int, size: int) -> int:
    return -(-count // size)


def machines(found: Found) -> None:
    """Artifact `machines`: what `loupe ec2 launch --json` rented, and what that cost."""
    _show("machines", machines_markdown(found))


def machines_markdown(found: Found) -> str:
    """The cost beside the estimate, and all machines with how they ended."""
    rows = [
        (code(one["instance"]), one["type"], one["market"], one["zone"], f"{one['price']:.3f}", one["began"],
         one["ended"], text(one["outcome"]))
        for one in found["attempts"]
        if one["instance"]
    ]  # fmt: skip
    heads = ["machine", "type", "market", "zone", "USD an hour", "launched", "ended", "how"]
    if not rows:
        return _page("**No machine was needed**: the same had been trained before.")
    estimated = f"; estimated were {found['estimate']['usd']:.2f}" if found["estimate"] else ""
    cost = f"**{found['usd']:.2f} USD** for training on EC2{estimated}."
    return _page(cost, _table(heads, rows, "llllrlll"))


# ------------------------------------------------------------------------------------------------ data


def ingest(found: Found) -> None:
    """Artifact `ingest`: what `loupe ingest --json` did with an inbox."""
    _show("ingest", ingest_markdown(found))


def ingest_markdown(found: Found) -> str:
    """The verdict, the counts, and the pictures that were not accepted."""
    from loupe.quality.ingest import STATES, Decision, Ingested

    decisions = tuple(Decision(**one) for one in found["files"])
    before, after = found["data_dvc"]["before"], found["data_dvc"]["after"]
    said = Ingested(decisions, tuple(found["others"]), before, after, found["cleared"])
    counts = [(words, found["counts"][state]) for state, words in STATES.items()]
    refused = [one for one in decisions if one.state in ("quarantined", "changed")]
    changed = "as it was" if before == after else f"{code(before[:12])} before, {code(after[:12])} now"
    return _page(
        f"{said.verdict}. Product images: {changed}.",
        _table(("pictures", "number"), counts, "lr"),
        "### Not accepted" if refused else "",
        _some(("picture", "why"), [(code(one.name), text(one.reason or STATES[one.state])) for one in refused]),
        f"Taken for no pictures: {', '.join(map(code, found['others'][:MOST]))}" if found["others"] else "",
    )


def validation(found: Found) -> None:
    """Artifact `validation`: metrics/validation.json."""
    _show("validation", validation_markdown(found))


def validation_markdown(found: Found) -> str:
    """The verdict, the rules that some picture breaks, and the pictures that are refused."""
    from loupe.quality.report import verdict

    sets = found["sets"]
    rules = list(dict.fromkeys(rule for one in sets.values() for rule in one["rules"]))
    rows = [(text(rule), *(one["rules"].get(rule, 0) for one in sets.values())) for rule in rules]
    heads = ("rule, severity", *(f"{text(name)}, {one['images']} pictures" for name, one in sets.items()))
    refused = [(text(name), code(path)) for name, one in sets.items() for path in one["refused"]]
    return _page(
        f"{verdict(found)}.",
        _table(heads, [row for row in rows if any(row[1:])], "l" + "r" * len(sets)),
        "### Refused" if refused else "",
        _some(("set", "picture"), refused),
    )


def drift(found: Found, min_batch: int, reasons: Sequence[str] = ()) -> None:
    """Artifact `drift`: what `loupe drift --json` printed, and what follows from it; see `drift_markdown`."""
    _show("drift", drift_markdown(found, min_batch, reasons))


def drift_markdown(found: Found, min_batch: int, reasons: Sequence[str] = ()) -> str:
    """The verdict, and a row for each fact, those that drifted first.

    Args:
        found: see `loupe.quality.drift.to_json`.
        min_batch: the parameter `retrain.min_batch`, for the verdict.
        reasons: of the decision whether to train anew.
    """
    from loupe.quality.drift import Drift, FactDrift, verdict

    columns = tuple(FactDrift(**one) for one in found["columns"])
    known = {key: found[key] for key in ("drift", "enough", "share", "n_reference", "n_current")}
    rows = [
        (
            fact.name,
            *("–" if value is None else f"{value:.4g}" for value in (fact.reference_median, fact.current_median)),
            *("–" if value is None else f"{value:.3g}" for value in (fact.statistic, fact.threshold)),
            "–" if fact.statistic is None else "**yes**" if fact.drifted else "no",
        )
        for fact in sorted(columns, key=lambda fact: not fact.drifted)
    ]
    heads = ("fact", "reference median", "current median", "distance", "threshold", "drifted")
    return _page(
        f"{verdict(Drift(**known, columns=columns), min_batch)}.",
        _bullets(map(text, reasons)),
        _table(heads, rows, "lrrrrl"),
    )


# ------------------------------------------------------------------------------------------------ the model


def scores(summary: Found, decision: Found | None = None) -> None:
    """Artifact `scores`: PSNR-Y of every set, beside the champion and bicubic enlargement; see `scores_markdown`."""
    _show("scores", scores_markdown(summary, decision))


def scores_markdown(summary: Found, decision: Found | None = None) -> str:
    """A row for each set; gains with the interval that holds 95 % of what chance makes of so few pictures.

    Args:
        summary: metrics/evaluate.json; the champion's figures are taken from it where it holds them.
        decision: what `loupe registry promote --dry-run --json` printed: the gate's, on the same pictures.
    """
    from loupe.evaluation.intervals import interval

    gains: dict[str, list[float]] = {}
    champion = str(summary["methods"].get("champion", ""))
    if decision and decision["champion"]["sha256"]:
        champion = champion or str(decision["champion"]["label"])
        for one in decision["gains"]:
            gains.setdefault(one["set"], []).append(one["gain_db"])
    rows = []
    for name, one in summary["sets"].items():
        ours, bicubic = one["psnr_y"], one["others"]["bicubic"]
        row = [text(name), one["n"], db(ours), db(one["ssim_y"], 4)]
        if theirs := one["others"].get("champion"):
            row += [db(theirs["psnr_y"]), _gain(theirs["gain_db"], theirs["interval_95"]["gain_db"])]
        elif champion:
            mine = gains.get(name, [])
            mean = sum(mine) / len(mine) if mine else None
            row += [db(None if None in (ours, mean) else ours - mean), _gain(mean, interval(mine))]
        rows.append((*row, db(bicubic["psnr_y"]), _gain(bicubic["gain_db"], bicubic["interval_95"]["gain_db"])))
    heads = ["set", "pictures", "PSNR-Y dB", "SSIM-Y"]
    heads += ["champion", "gain over it (95 %)"] if champion else []
    psnr = ", ".join(f"{text(name)} {db(one['psnr_y'])} dB" for name, one in summary["sets"].items())
    beside = f"beside the champion, {text(champion)}" if champion else "beside bicubic enlargement alone"
    overall = _gain(decision["gain_db"], decision["interval_95"]) if decision else ""
    return _page(
        f"{psnr}; {beside}.",
        f"The model: {text(summary['model']['label'])}, {code(summary['model']['sha256'][:12])}.",
        _table((*heads, "bicubic", "gain over it (95 %)"), rows, "l" + "r" * (len(heads) + 1)),
        f"All sets together, as the gate counts: {overall} dB over {text(decision['champion']['label'])}."
        if decision
        else "",
    )


def decision(found: Found, then: Sequence[str] = ()) -> None:
    """Artifact `decision`: what the gate decided, guard by guard; see `decision_markdown`."""
    _show("decision", decision_markdown(found, then))


def decision_markdown(found: Found, then: Sequence[str] = ()) -> str:
    """The verdict, and a row for each guard.

    Args:
        found: what `loupe registry promote --dry-run --json` printed.
        then: who may do what next: sentences in Markdown, with names of strangers in `code` or `text`.
    """
    from loupe.release.gate import Decision, allowed, shown, verdict

    made = Decision.from_dict(found)
    kind, _, why = verdict(made).partition(": ")
    rows = [
        (text(one.name), shown(one), allowed(one), "ok" if one.passed else "**FAILS**", text(one.sentence))
        for one in made.guards
    ]
    return _page(
        f"{'May be promoted' if kind == 'promoted' else _capital(text(kind))}: {text(why)}.",
        _table(("guard", "measured", "asked for", "", ""), rows, "lrlll"),
        "### What next" if then else "",
        _bullets(then),
    )


def record(commit: str, folder: Path | None, event: Found | None = None) -> None:
    """Artifact `record`: what reproduces the model; see `record_markdown`.

    Args:
        commit: that holds dvc.lock.
        folder: with dvc.lock and data.dvc; None where that commit is not checked out.
        event: what `loupe registry promote --json` or `rollback --json` printed.
    """
    _show("record", record_markdown(commit, outputs(folder) if folder else {}, event))


def record_markdown(commit: str, outs: Mapping[str, str], event: Found | None = None) -> str:
    """The commit, the move of the alias, and DVC's hashes by output."""
    head, moved = "", []
    if event:
        head = f"Version {text(event['version'])}, {text(event['event'])} of {text(event['alias'])}; "
        moved = [
            ("version before", text(event["from"] or "–")),
            ("bundle", code(event["identity"])),
            ("by", text(event["by"])),
            ("at", text(event["moved_at"])),
            ("reason", text(event["reason"]) or "–"),
        ]
    hashes = [(code(path), code(md5)) for path, md5 in outs.items()]
    return _page(
        _capital(f"{head}commit {code(commit)}."),
        _table(("", ""), moved, "ll"),
        _table(("output of DVC", "md5"), hashes, "ll"),
    )


def outputs(folder: Path) -> dict[str, str]:
    """DVC's hash of all that data.dvc and dvc.lock in `folder` tell of, by path."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    data, lock = (yaml.load(folder / name) for name in ("data.dvc", "dvc.lock"))
    outs = [*data["outs"], *(out for stage in lock["stages"].values() for out in stage.get("outs", ()))]
    return {out["path"]: out["md5"] for out in outs}


def upscaled(found: Found, output: str) -> None:
    """Artifact `upscaled`: what `loupe upscale --json` printed."""
    _show("upscaled", upscaled_markdown(found, output))


def upscaled_markdown(found: Found, output: str) -> str:
    """The counts, and the pictures that failed."""
    words = {"done": "made", "skipped": "there already", "failed": "failed", "left": "left"}
    counts = ", ".join(f"{found[key]} {word}" for key, word in words.items() if found[key] or key == "done")
    failures = [(code(one["source"]), text(one["reason"])) for one in found["failures"]]
    return _page(
        f"Pictures: {counts}.",
        f"Into {code(output)}, by the model {code(found['model']['sha256'][:12])}: "
        f"{found['pictures_per_second']:.3g} pictures/s, {found['megapixels_per_second']:.3g} megapixels/s.",
        f"**Stopped: {text(found['stopped'])}**" if found["stopped"] else "",
        _some(("failed", "why"), failures, f"{code('failures.jsonl')} beside the pictures"),
    )


def links(addresses: Mapping[str, str]) -> None:
    """Artifact `links`: where reports can be opened, by what they show; addresses are those of `publish`."""
    _show("links", links_markdown(addresses))


def links_markdown(addresses: Mapping[str, str]) -> str:
    """A list of links; of a zip it says what is to be done with it."""
    note = " (a zip: unpack it and open index.html; the link ends after 7 days at most)"
    listed = (f"[{text(what)}](<{address}>){note if is_zip(address) else ''}" for what, address in addresses.items())
    return _page(f"To look at: {'; '.join(map(text, addresses))}.", _bullets(listed))


def evaluation_links(address: str) -> dict[str, str]:
    """What a published report of an evaluation offers, for `links`."""
    whole = {"Report: scores, and every picture under a magnifying glass": address}
    return whole if is_zip(address) else whole | {"Best and worst patches": f"{address}#patches"}


# ------------------------------------------------------------------------------------------------ Markdown


def code(name: str) -> str:
    """A name of strangers as Markdown: a piece of code, in which nothing else can be."""
    shown = printable(name).replace("`", r"\x60").replace("|", r"\x7c")
    return f"`{_short(shown)}`" if shown else "–"


def text(sentence: str) -> str:
    """A sentence that may hold names of strangers as Markdown: nothing in it is a link, HTML, or the end of a cell."""
    plain = " ".join(map(_short, str(sentence).split()))
    plain = "".join(character if character.isprintable() else "\ufffd" for character in plain)
    # The UI makes links of bare addresses, escaped or not; a word joiner, which is not seen, keeps it from that.
    plain = re.sub(r"(?i)(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", "\u2060", plain)
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", plain)


def _short(word: str) -> str:
    half = LONGEST // 2
    return word if len(word) <= LONGEST else f"{word[:half]}…{word[-half:]}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def db(value: float | None, digits: int = 2) -> str:
    """Decibels, or another figure, that may be infinite: JSON has null for it then."""
    return "–" if value is None else f"{value:.{digits}f}"


def _gain(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else f"{value:+.2f} (no interval)"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], align: str) -> str:
    """A table; `align` has l or r for each column. Cells are Markdown already. Nothing where there are no rows."""
    sides = ["left" if side == "l" else "right" for side in align]
    return str(tabulate(rows, heads, tablefmt="pipe", disable_numparse=True, colalign=sides)) if rows else ""


def _some(heads: Sequence[str], rows: Sequence[Sequence[object]], where: str = "the report") -> str:
    """A table of MOST rows at most, and how many more are in `where`."""
    more = f"\n\nand {len(rows) - MOST} more, see {where}" if len(rows) > MOST else ""
    return _table(heads, rows[:MOST], "l" * len(heads)) + more


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _page(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


# ------------------------------------------------------------------------------------------------ Prefect


def log(line: str) -> None:
    """A line in the log of whatever runs at this moment, a task or the flow."""
    get_run_logger().info("%s", line)


def rename(name: str) -> None:
    """Give this flow run a name that says what it does and why: that is what the list of runs shows."""
    with _whatever_the_server_says("the name"), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.get_id()), name=name)


def _show(key: str, markdown: str) -> None:
    """The first paragraph, the verdict, becomes the description: that is what the list of a run's artifacts shows."""
    verdict, _, rest = markdown.strip().partition("\n\n")
    with _whatever_the_server_says(key):
        create_markdown_artifact(rest or verdict, key=key, description=verdict)


@contextmanager
def _whatever_the_server_says(key: str) -> Iterator[None]:
    """It may be away, or somebody may have removed an artifact that is to be changed."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("%s cannot be shown: %s; the run goes on", key, error)
