"""A whole catalogue: the work of batch.py done by many processes on many machines, on Ray Data.

The driver, which is where the command runs, lists the pictures and cuts the list into pieces. Ray Data hands them to
workers: actors that load the model once and do with a piece what one machine does with a folder. It gives out no more
than workers can take, starts a dead one again and hands its piece on. A piece that is begun anew is only completed, for
what is finished is noted: at S3 in the copies themselves, on shared disks in the journal, which the driver writes.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loupe.errors import InputError
from loupe.upscaling.batch import Job, Journal, Outcome, Stop, stands, upscale_all
from loupe.upscaling.places import S3Path, place
from loupe.upscaling.runtimes import CONFIG, CONTRACT, FAST, MANIFEST, MODEL, WEIGHTS, load_enlarger
from loupe.upscaling.upscaler import Upscaler

MOST = 256  # pictures of a piece: what a dead worker's successor has to look through again
PIECES = 8  # for each worker, at least: the last ones to finish wait for one piece at most
AHEAD = 2  # pieces at a worker, so that none waits for the driver
CONNECT_SECONDS = 10.0
TRIES = 4  # of a piece whose worker died: Ray would try for ever


@dataclass(frozen=True)
class Order:
    """What all workers are told. scale, memory, identity: see Upscaler. fast, kind: as of `loupe upscale`."""

    scale: int
    memory: int
    identity: str
    fast: bool
    kind: str


@dataclass(frozen=True)
class Share:
    """How many workers there are, and what each has of its machine."""

    workers: int
    cores: int
    gpus: int


class Tries:
    """An actor: how often each piece was begun."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, piece: str) -> int:
        """Count a try of `piece`; its number, from 1."""
        self._begun[piece] += 1
        return self._begun[piece]


class Worker:
    """An actor: a network, loaded once, and what it makes of each piece.

    Args:
        order: what to do.
        files: the model's, by their names, as Ray's reference.
        name: of the one to load; "" for the folder.
        cores: to compute with.
        tries: the actor that counts them.
    """

    def __init__(self, order: Order, files: Any, name: str, cores: int, tries: Any) -> None:
        import ray

        os.environ["LOUPE_THREADS"] = str(cores)
        self._order = order
        self._tries = tries
        with tempfile.TemporaryDirectory(prefix="loupe-") as folder:
            for file, content in ray.get(files).items():
                (Path(folder) / file).write_bytes(content)
            enlarger = load_enlarger(Path(folder) / name, fast=order.fast)
        self._upscaler = Upscaler(enlarger, order.scale, order.memory, order.identity)

    def __call__(self, rows: Mapping[str, Sequence[str]]) -> Iterator[dict[str, list[str]]]:
        """Do the pieces in `rows`: an outcome a picture, in JSON; none for pieces that ended too many workers."""
        import ray

        for piece in rows["item"]:
            tasks, stop = json.loads(piece), Stop()
            if ray.get(self._tries.begin.remote(f"{tasks[0]['number']} and {len(tasks)}")) > TRIES:
                continue
            noted = _Noted({task["target"]: task["noted"] for task in tasks})
            outcomes = upscale_all(map(_job, tasks), self._upscaler, noted, self._order.kind, stop)
            for task, outcome in zip(tasks, outcomes, strict=True):
                told = {key: value for key, value in asdict(outcome).items() if key != "job"}
                yield {"outcome": [json.dumps({"number": task["number"], "stopped": stop.reason, **told})]}


@dataclass(frozen=True)
class _Noted:
    """What the driver's journal says of the files of a piece. It adds what was written when it hears of it."""

    entries: Mapping[str, dict[str, Any]]

    def holds(self, target: Path, key: str) -> bool:
        return stands(self.entries.get(str(target), {}), target, key)

    def add(self, target: Path, key: str) -> None:
        pass


def upscale_on_ray(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    journal: Journal | None,
    kind: str,
    *,
    model: Path,
    fast: bool,
    memory: int,
    stop: Stop,
    address: str,
    workers: int,
) -> Iterator[Outcome]:
    """Do all jobs on a Ray cluster; an outcome for each, as they come.

    Args:
        jobs: see `batch.plan`. Paths must be the same on all machines.
        upscaler: the network as it is here: its scale, and the identity that is noted, are those of all.
        journal: of the folder written into, if it is one.
        kind: see `batch.upscale_all`.
        model: a folder or file that `load_enlarger` takes; its files are sent to the workers.
        fast: see `load_enlarger`.
        memory: that each worker's network may take at once; see Upscaler.
        stop: asked, the pieces not yet begun are left.
        address: of the cluster; "" for RAY_ADDRESS or, without that, for this machine alone.
        workers: how many; 0 for one on each machine, or one for each GPU where there are any.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    with _connected(address, workers) as ray:
        share = share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], workers)
        order = Order(upscaler.scale, memory, upscaler.identity, fast, kind)
        files = _files(model)
        name = model.name if model.suffix == ".onnx" else ""
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        tries = ray.remote(num_cpus=0)(Tries).options(scheduling_strategy=here).remote()
        arguments = (order, ray.put(files), name, share.cores, tries)
        waiting = dict(enumerate(jobs))
        most = min(MOST, len(jobs) // (share.workers * PIECES))
        for size in (max(1, most), 1):  # a picture that ends its worker takes its piece along only the first time
            pieces = _pieces(waiting, size, journal)
            for told in _outcomes(ray, pieces, arguments, share, stop):
                job = waiting.pop(told.pop("number"), None)
                if reason := told.pop("stopped"):
                    stop.ask(reason)
                if job is None:
                    continue  # told twice, by a worker that died meanwhile and by its successor
                outcome = Outcome(job, **told | {"notes": tuple(told["notes"]), "size": tuple(told["size"])})
                if outcome.state == "done" and journal and isinstance(job.target, Path):
                    journal.add(job.target, outcome.key)
                yield outcome
                if stop.event.is_set():
                    break
            if stop.event.is_set() or not waiting:
                break
        for job in waiting.values():
            if stop.event.is_set():
                yield Outcome(job, "left")
            else:
                yield Outcome(job, "failed", f"its worker ended {TRIES} times; is there enough memory?")


def share_out(machines: Sequence[Mapping[str, float]], workers: int = 0) -> Share:
    """How many workers a cluster has, and what of it each takes.

    Args:
        machines: what each has, as Ray says: "CPU" and "GPU".
        workers: how many are wanted; 0 for one on each machine, or one for each GPU where there are any.
    """
    with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    if with_gpu:
        cores = min(int(machine.get("CPU", 1) // machine["GPU"]) for machine in with_gpu)
        return Share(workers or int(sum(machine["GPU"] for machine in with_gpu)), max(1, cores), 1)
    computing = [machine for machine in machines if machine.get("CPU", 0) >= 1] or [{"CPU": 1}]
    workers = workers or len(computing)
    on_each = -(-workers // len(computing))
    cores = min(int(machine["CPU"] // on_each) for machine in computing)
    return Share(workers, max(1, cores), 0)


@contextmanager
def _connected(address: str, workers: int) -> Iterator[Any]:
    """Ray, connected to a cluster or to one of its own. It reports nothing to its makers, and serves no dashboard."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError:
        raise InputError("--engine ray needs the extra `ray`: pip install 'loupe[ray]'") from None
    address = address or os.environ.get("RAY_ADDRESS", "local")
    alone: dict[str, Any] = {"num_cpus": max(workers, len(os.sched_getaffinity(0)))} if address == "local" else {}
    _check(address)
    with redirect_stdout(sys.stderr):  # where Ray says what died; stdout is for results
        try:
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **alone)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"{address}: no Ray cluster answers ({error}); check --address and RAY_ADDRESS") from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # what became of each picture is said here
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # nor how it got to know
        try:
            yield ray
        finally:
            ray.shutdown()


def _check(address: str) -> None:
    """Whether anybody listens there. Ray itself would try for minutes.

    Raises:
        InputError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # one of Ray's own words
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(f"{address}: no Ray cluster answers ({error}); check --address and RAY_ADDRESS") from None


def _outcomes(
    ray: Any, pieces: Sequence[str], arguments: tuple[Any, ...], share: Share, stop: Stop
) -> Iterator[dict[str, Any]]:
    """What the workers tell. An error of the cluster as a whole stops the run."""
    pool = ray.data.ActorPoolStrategy(size=share.workers, max_tasks_in_flight_per_actor=AHEAD)
    found = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        Worker,
        batch_size=1,
        compute=pool,
        fn_constructor_args=arguments,
        num_cpus=share.cores,
        num_gpus=share.gpus,
    )
    try:
        for row in found.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        stop.ask(f"the cluster failed: {reason.strip()}; mend it and run again, it goes on")


def _pieces(jobs: Mapping[int, Job], size: int, journal: Journal | None) -> list[str]:
    """Jobs in lists of so many, in JSON; each with its number, and with what the journal says of its file."""
    numbered = list(jobs.items())
    return [
        json.dumps([_task(number, job, journal) for number, job in numbered[start : start + size]])
        for start in range(0, len(numbered), size)
    ]


def _task(number: int, job: Job, journal: Journal | None) -> dict[str, Any]:
    source, target = (one.absolute() if isinstance(one, Path) else one for one in (job.source, job.target))
    task = {"number": number, "source": str(source), "target": str(target), "refused": job.refused}
    task["etag"] = job.source.etag if isinstance(job.source, S3Path) else ""
    task["noted"] = journal.entry(job.target) if journal and isinstance(job.target, Path) else {}
    return task


def _job(task: Mapping[str, Any]) -> Job:
    """The job of a `_task`."""
    source = place(task["source"])
    if isinstance(source, S3Path):
        source = S3Path(source.bucket, source.key, task["etag"])
    return Job(source, place(task["target"]), task["refused"])


def _files(model: Path) -> dict[str, bytes]:
    """The files of a model that workers need, by their names."""
    folder, first = (model.parent, [model.name]) if model.suffix == ".onnx" else (model, [MODEL, FAST, WEIGHTS])
    return {
        name: (folder / name).read_bytes() for name in (*first, CONFIG, CONTRACT, MANIFEST) if (folder / name).is_file()
    }
