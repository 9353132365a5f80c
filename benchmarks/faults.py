"""Is anything lost, doubled or changed when something breaks? One small real study, broken in many ways.

Each fault starts the study anew, strikes at a random moment of its training, and then the same command is given again
until it is done. What is then on disk and in MLflow is compared, bit for bit, with the study that nothing happened to.

    python benchmarks/faults.py               # 32 kills and all other faults: an hour on two cores
    python benchmarks/faults.py --quick       # each fault once
    python benchmarks/faults.py --only kill   # those whose names begin so
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from urllib.request import urlopen

from faults_place import (
    STAGES,
    TRIALS,
    Place,
    Row,
    descendants,
    end,
    kill_group,
    locked,
    reasons_of,
    runs_of,
    wait,
    workers,
)
from rich.console import Console
from rich.table import Table

VICTIMS = ("driver", "worker", "raylet", "group")
AGAIN = 4  # times that a command is given again at most


@dataclass(frozen=True)
class Bench:
    """What all faults share: where, how long the study trains (seconds), and what it gives if left alone."""

    folder: Path
    epochs: int
    times: int
    quick: bool
    window: float
    reference: Mapping[str, object]
    whole: Place
    random: random.Random
    console: Console

    def place(self) -> Place:
        """Return a new, empty place."""
        return Place(self.folder / f"place-{self.random.getrandbits(48):x}", self.epochs)

    def copy(self) -> Place:
        """Return a place with the finished study."""
        place = self.place()
        shutil.copytree(self.whole.folder, place.folder, dirs_exist_ok=True)
        return place

    def again(self, place: Place, row: Row) -> None:
        """Give the same command until it is done, and judge."""
        codes: list[int] = []
        while (not codes or codes[-1]) and len(codes) < AGAIN:
            codes.append(place.call())
        row.expect(codes[-1] == 0, f"the same command ended with {codes}")
        place.judge(row, self.reference)


def kill(victim: str, bench: Bench, row: Row) -> None:
    """Kill something with SIGKILL at a random moment of training."""
    for _ in range(3 * bench.times):
        if row.tried == bench.times:
            return
        place, enough, moment = bench.place(), bench.random.randrange(6), bench.random.uniform(0, 1)
        process = place.start()
        wait(partial(place.reached, process, enough), process)
        time.sleep(moment)
        found = {
            "worker": workers(process),
            "raylet": [one for one, line in descendants(process) if line.split(" ")[0].endswith("/raylet")],
        }
        done = place.stages()
        if process.poll() is not None or not found.get(victim, [process]):
            bench.console.print(f"  {done} of {STAGES} stages done: it was over before")
            end(process)
            continue
        if victim == "group":
            kill_group(process)
        else:
            bench.random.choice(found.get(victim, [process])).send_signal(signal.SIGKILL)
        row.tried += 1
        start = time.monotonic()
        # What is left of a killed driver stays as it is while the next one starts.
        code = process.wait(300) if victim == "driver" else end(process)
        waited = time.monotonic() - start
        bench.console.print(f"  {done} of {STAGES} stages done; ended with {code} after {waited:.1f} s")
        if code > 0:
            bench.console.print(f"  it said: {place.said()[-300:]}", markup=False)
        row.expect(victim != "worker" or code == 0, f"a lost worker ended the run with {code}")
        bench.again(place, row)
        kill_group(process)
        shutil.rmtree(place.folder)


def node(bench: Bench, row: Row) -> None:
    """Remove one of two nodes of a Ray cluster at a random moment."""
    for _ in range(1 if bench.quick else 3):
        place = bench.place()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            moment = bench.random.uniform(0, bench.window)
            complete, alive = pool.submit(_lose_node, place.folder, place.settings, moment).result()
        row.tried += alive
        row.expect(complete, "the run did not complete")
        place.judge(row, bench.reference)


def _lose_node(folder: Path, settings: list[str], moment: float) -> tuple[bool, bool]:
    """Run a study on a cluster of two nodes and lose one; return whether all was done, and whether it was running."""
    from threading import Event, Timer

    import ray
    from ray.cluster_utils import Cluster

    from study.commands.pipeline import run_study
    from study.config.composition import compose
    from study.sweep.status import Account

    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        started, over = Event(), Event()
        alive: list[bool] = []

        def lose() -> None:
            alive.append(not over.is_set())
            cluster.remove_node(nodes[1], allow_graceful=False)

        def show(account: Account) -> None:
            if account.stages_done and not started.is_set():
                started.set()
                Timer(moment / 2, lose).start()

        outcome = run_study(compose([*settings, f"resources.address={cluster.address}"]), show)
        over.set()
        time.sleep(moment / 2 + 1)
        return outcome.complete and not outcome.behind, alive == [True]
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run an MLflow server on this machine."""
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "a")]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "server.txt").open("ab") as log:
        command = [sys.executable, "-m", "mlflow", "server", *address, *store]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert time.monotonic() < deadline, (folder / "server.txt").read_text()
            time.sleep(0.2)
        yield process
    finally:
        kill_group(process)  # type: ignore[arg-type]
        process.wait()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def stopped_server(bench: Bench, row: Row) -> None:
    """Stop the tracking server in mid-run; then bring MLflow up with `sync`."""
    place = bench.place()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracking = ["tracking=server", f"tracking.uri=http://127.0.0.1:{port}"]
    with server(place.folder, port):
        process = place.start("run", *tracking)
        wait(lambda: place.done() > 0, process)
    row.tried += 1
    code, shown = end(process), [status for _, status in runs_of(place.folder / "server.db")].count("FINISHED")
    said = place.said()
    row.expect(code == 1 and "MLflow is behind" in said and "Traceback" not in said, f"exit {code}: {said[-500:]}")
    row.expect(place.done() == TRIALS, "training did not go on")
    with server(place.folder, port):
        row.expect(place.call("sync", *tracking) == 0, f"sync: {place.said()[-500:]}")
    place.judge(row, bench.reference, place.folder / "server.db")
    row.note = f"{shown} trials shown before, {TRIALS} after sync"


def locked_database(bench: Bench, row: Row) -> None:
    """Lock MLflow's sqlite database in mid-run."""
    seconds = 8 if bench.quick else 60
    place = bench.place()
    process = place.start()
    wait(lambda: place.done() > 0, process)
    with locked(place.database):
        row.tried += 1
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.1)
    code, said = end(process), place.said()
    row.expect(code == ("MLflow is behind" in said) and "Traceback" not in said, f"exit {code}: {said[-500:]}")
    row.expect(code == 0 or place.call("sync") == 0, "sync")
    place.judge(row, bench.reference)
    row.note = f"for {seconds} s; {'behind, then sync' if code else 'waited for it'}"


def sync(bench: Bench, row: Row) -> None:
    """`sync` rebuilds MLflow from nothing, and changes nothing of what is there."""
    place = bench.copy()
    shutil.rmtree(place.folder / "mlruns")
    for word in ("empty", "full"):
        row.tried += 1
        before = sorted(runs_of(place.database)) if word == "full" else None
        row.expect(place.call("sync") == 0, f"on {word}: {place.said()[-500:]}")
        row.expect(before in (None, sorted(runs_of(place.database))), "it changed what was there")
        place.judge(row, bench.reference)


def full_disk(bench: Bench, row: Row) -> None:
    """Let the disk of the study be full at a random point; then enlarge it."""
    size = sum(path.stat().st_size for path in bench.whole.study.rglob("*") if path.is_file())
    for _ in range(1 if bench.quick else 4):
        place = bench.place()
        disk = place.folder / "studies"
        disk.mkdir()
        small = int(size * bench.random.uniform(0.2, 0.9))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={small}", "none", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            row.note = "not tried: a small disk can be mounted by root only"
            return
        try:
            row.tried += 1
            code, said = place.call(), place.said()
            row.expect(code == 1 and "cannot be written" in said and "MiB are free" in said, f"exit {code}: {said}")
            row.expect("Traceback" not in said, said[-1000:])
            done = place.done()
            bench.console.print(f"  {small / 2**20:.1f} of {size / 2**20:.1f} MiB: {done} of {TRIALS} done")
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            bench.again(place, row)
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def flipped_byte(what: str, bench: Bench, row: Row) -> None:
    """Flip a bit of a byte in something that is on disk."""
    place = bench.copy()
    pattern = {
        "result": "trials/*.json",
        "predictions": "trials/*.npz",
        "weights": "stages/*/*.pt",
        "counts": "counts/*/counts_data.npy",
    }
    path = bench.random.choice(sorted(place.study.glob(pattern[what])))
    if what == "weights":  # needed only if something is to start from them
        for result in place.study.glob("trials/*.json"):
            result.unlink()
    content = bytearray(path.read_bytes())
    at = bench.random.randrange(len(content))
    content[at] ^= 1 << bench.random.randrange(8)
    path.write_bytes(content)
    row.tried += 1
    code, said = place.call(), place.said()
    row.expect(code == 0 and ("is damaged" in said or "broken" in said), f"exit {code}: {said[-500:]}")
    place.judge(row, bench.reference)
    row.note = f"byte {at} of {len(content)}"


def failing(reason: str, overrides: list[str], environment: dict[str, str], bench: Bench, row: Row) -> None:
    """Let every trial fail, or be blocked by what it starts from; then take the cause away, if it is no setting."""
    place = bench.place()
    row.tried += 1
    code, said = place.call("run", *overrides, environment=environment), place.said()
    row.expect(code == 1 and "Traceback" not in said, f"exit {code}: {said[-500:]}")
    reasons = reasons_of(place.database)
    blocked = [one for one in reasons if one.startswith("blocked")]
    row.expect(len(reasons) == TRIALS, f"{len(reasons)} trials are FAILED")
    row.expect(all(reason in one for one in reasons), f"reasons are {set(reasons)}")
    row.expect(reason in (place.study / "report.html").read_text(), "the report does not say it")
    row.note = f"{len(reasons)} FAILED, {len(blocked)} of them blocked"
    if environment or overrides[0].startswith("resources."):
        bench.again(place, row)


def two_runs(bench: Bench, row: Row) -> None:
    """Run one study twice at once."""
    place = bench.place()
    first = place.start()
    wait(partial(place.reached, first, 0), first)
    row.tried += 1
    second, said = place.call(), place.said()
    row.expect(second == 2 and f"process {first.pid}" in said, f"exit {second}: {said[-500:]}")
    row.expect(end(first) == 0, "the first did not complete")
    place.judge(row, bench.reference)


PARTS = ("result", "predictions", "weights", "counts")
LITTLE_MEMORY = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
FAULTS: dict[str, Callable[[Bench, Row], None]] = {
    **{f"kill -9 of the {victim}": partial(kill, victim) for victim in VICTIMS},
    "a node is lost": node,
    "MLflow's server stops": stopped_server,
    "MLflow's database is locked": locked_database,
    "sync": sync,
    "the disk is full": full_disk,
    **{f"flipped byte in {part}": partial(flipped_byte, part) for part in PARTS},
    "the loss is nan": partial(failing, "the training loss is", ["scanvi.classification_ratio=1e39"], {}),
    "an exception in pretraining": partial(failing, "TypeError", ["scvi.extra.var_activation=nll_loss"], {}),
    "out of memory": partial(failing, "memory", [], LITTLE_MEMORY),
    "a stage hangs": partial(failing, "stage_minutes", ["resources.stage_minutes=0.001"], {}),
    "two runs at once": two_runs,
}


def undisturbed(folder: Path, epochs: int) -> tuple[Place, float]:
    """Run the study once, and return it with the seconds from the first step to the last."""
    from study.trials.timing import read_timings

    place = Place(folder / "whole", epochs)
    if place.call():
        raise RuntimeError(place.said())
    records = read_timings(place.study)
    return place, max(one.ended for one in records) - min(one.started for one in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, help="kills of each kind", default=None)
    parser.add_argument("--epochs", type=int, default=80, help="of pretraining")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", default="", help="faults whose names begin so")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, width=150, highlight=False)
    times = arguments.times or (1 if arguments.quick else 8)
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        whole, window = undisturbed(folder, arguments.epochs)
        reference = whole.contents()
        console.print(f"{TRIALS} trials, {window:.1f} s of training; seed of the moments: {arguments.seed}")
        for fault, strike in FAULTS.items():
            if not fault.startswith(arguments.only):
                continue
            chance = random.Random(f"{arguments.seed} {fault}")
            bench = Bench(folder, arguments.epochs, times, arguments.quick, window, reference, whole, chance, console)
            row, start = Row(fault), time.monotonic()
            strike(bench, row)
            row.seconds = round(time.monotonic() - start, 1)
            rows.append(row)
            console.print(f"{fault}: {row.tried} tried, {row.seconds:.0f} s {row.note}", markup=False)
            for wrong in row.wrong:
                console.print(f"  WRONG: {wrong}", markup=False)
    show(console, rows)
    total = {name: sum(getattr(row, name) for row in rows) for name in ("tried", "lost", "doubled", "different")}
    if arguments.json:
        total["wrong"] = sum(len(row.wrong) for row in rows)
        print(json.dumps({**total, "rows": [asdict(row) for row in rows]}))
    sys.exit(any(row.wrong or row.lost or row.doubled or row.different for row in rows))


def show(console: Console, rows: list[Row]) -> None:
    """Print a row per fault."""
    table = Table("fault", "tried", "trials lost", "doubled", "different", "wrong", "note")
    for row in rows:
        numbers = (row.tried, row.lost, row.doubled, row.different, len(row.wrong))
        table.add_row(row.fault, *map(str, numbers), row.note)
    console.print(table)


if __name__ == "__main__":
    main()
