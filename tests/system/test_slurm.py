"""`deploy/slurm/study.sbatch` as it is, on a real Slurm with two nodes, submitted as docs/cluster.md says.

Slurm, Ray, training and MLflow are real. Only nobody waits for a time limit: `timeout`, which keeps it, is told that it
is over.
"""

import json
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from study.trials.timing import read_timings
from tests.system.conftest import REPOSITORY, Workplace
from tests.system.slurm import Slurm, missing

SCRIPT = REPOSITORY / "deploy" / "slurm" / "study.sbatch"
# All of resources=cluster but its GPUs, and less of what this machine has little of.
LITTLE = ["resources.accelerator=cpu", "resources.gpus=0", "resources.cpus=1", "resources.memory_gib=0.5"]
NAME = "pbmc68k-tiny"


class Place(Workplace):
    """A folder that all nodes share, in which a user submits jobs."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        super().__init__(folder)
        self.slurm = slurm
        shutil.copy(SCRIPT, self.folder)
        (self.folder / ".venv").symlink_to(sys.prefix)

    def submit(self, *words: str) -> str:
        """Queue a job, with sbatch's own options before the name of the script."""
        said = self.slurm.does("sbatch", *words, folder=self.folder, environment=self.environment, check=True)
        (job,) = re.findall(r"^Submitted batch job (\d+)$", said, re.MULTILINE)
        return str(job)

    def log(self, job: str, kind: str = "log") -> str:
        """What a job has written so far."""
        path = self.folder / f"scanvi-study-{job}.{kind}"
        return path.read_text() if path.exists() else ""

    def ends(self, job: str) -> str:
        """Wait for the end of a job and return what it ended with: its state and its exit code."""
        self.until(lambda: self.slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), job, "its end")
        return "{JobState} {ExitCode}".format(**self.slurm.job(job))

    def until(self, reached: Callable[[], bool], job: str, what: str) -> None:
        """Wait for a job to reach something."""
        try:
            self.slurm.wait(reached, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(job)}\n{self.log(job, 'ray.log')}") from None

    def stages_done(self) -> int:
        """How many stages the study's last run has finished so far."""
        path = self.folder / "studies" / NAME / "run.json"
        return int(json.loads(path.read_text())["account"]["stages_done"]) if path.exists() else 0

    def timer(self, job: str) -> psutil.Process:
        """The `timeout` that keeps a job's time limit."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = [one for one in psutil.process_iter() if self._keeps_time(one, job)]
            return bool(found)

        self.until(there, job, "the study's start")
        return found[0]

    def _keeps_time(self, process: psutil.Process, job: str) -> bool:
        try:
            return process.cmdline()[:2] == ["timeout", "--signal=INT"] and (
                process.environ().items() >= {"SLURM_JOB_ID": job, "SLURM_CONF": str(self.slurm.configuration)}.items()
                and bool(process.children())  # before, a signal would just end it
            )
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """One cluster for all of them, in a folder that other users can read."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        cluster = Slurm(Path(folder))
        try:
            yield cluster
        finally:
            cluster.end()


@pytest.fixture
def place(slurm: Slurm, tmp_path: Path) -> Place:
    return Place(slurm, tmp_path)


def test_a_study_goes_on_after_its_time_limit_and_after_scancel_and_ends_on_two_nodes(
    place: Place, tiny: Callable[..., list[str]]
) -> None:
    command = ["--cpus-per-task=1", "--time=60", "study.sbatch", *tiny(*LITTLE)]
    slurm = place.slurm
    job = place.submit(*command)
    timer = place.timer(job)
    left = int(slurm.job(job)["EndTime"]) - 600 - timer.create_time()
    assert abs(int(timer.cmdline()[2]) - left) < 60, "it stops ten minutes before its end"
    place.until(lambda: place.stages_done() > 0, job, "a finished stage")
    timer.send_signal(signal.SIGALRM)
    place.until(lambda: slurm.job(job)["Restarts"] == "1", job, "that it is queued again")
    assert f"The time of job {job} was up: it is queued again and will go on." in place.log(job)
    place.timer(job)  # the study is there again, with Ray on both nodes
    slurm.does("scancel", job, check=True)
    assert place.ends(job).startswith("CANCELLED")
    before = {one.key: one.ended for one in read_timings(place.folder / "studies" / NAME)}
    assert before

    job = place.submit(*command)
    assert place.ends(job) == "COMPLETED 0:0", place.log(job)
    log = place.log(job)
    after = {one.key: one.ended for one in read_timings(place.folder / "studies" / NAME)}
    assert before.items() <= after.items() and len(before) < len(after), "what was finished is not trained again"
    assert place.log(job, "ray.log"), "Ray's words are kept, but elsewhere"
    assert "ray" not in log.lower()
    assert log.splitlines()[-1].startswith("Next:   scanvi-study export"), "the last word is the study's"
    runs = place.runs()
    assert len(runs) == 16 and {status for _, status in runs} == {"FINISHED"}
    workers = {one.worker.split(":")[0] for one in read_timings(place.folder / "studies" / NAME)}
    assert workers == {"node0", "node1"}, "both nodes trained"
    assert (Path(place.environment["HOME"]) / ".ray" / "auth_token").is_file(), "it ran with a token"
    assert not list(place.folder.glob(".scanvi-study-*"))


def test_what_cannot_be_done_is_a_failed_job_and_not_queued_again(place: Place, tiny: Callable[..., list[str]]) -> None:
    on_one_node = ["--nodes=1", "--cpus-per-task=1", "study.sbatch"]
    refused = place.submit(*on_one_node, *tiny("scvi.max_epoch=3"))
    # Alone on a node each, at the same time.
    too_short = place.submit(*on_one_node, *tiny(*LITTLE))
    place.timer(too_short).send_signal(signal.SIGALRM)
    assert place.ends(too_short) == "FAILED 124:0"
    assert place.log(too_short).splitlines()[-1].startswith("No stage was finished in this time: ask for more with")
    assert place.ends(refused) == "FAILED 2:0"
    assert "Did you mean 'max_epochs'?" in place.log(refused).splitlines()[-1]
    shorter = place.submit("--time=5", *on_one_node)
    assert place.ends(shorter) == "FAILED 2:0"
    assert place.log(shorter).startswith("The study stops ten minutes before the end of its job")


def test_jobs_that_would_share_a_node_are_refused(slurm: Slurm) -> None:
    """Of two users, on the same node: Ray's ports and folders would be in each other's way."""
    folder = slurm.folder / "shared"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    script = SCRIPT.read_text().replace("#SBATCH --exclusive\n", "")
    (folder / "study.sbatch").write_text(script)
    submit = ["sbatch", "--nodes=1", "--nodelist=node0", "--cpus-per-task=1", "--mem=100", "study.sbatch"]
    jobs = [slurm.does(*submit, user=user, folder=folder, check=True).split()[-1] for user in (0, 65534)]
    for job in jobs:
        slurm.wait(lambda job=job: slurm.job(job)["JobState"] == "FAILED", "that it is refused")
        assert "add --exclusive" in (folder / f"scanvi-study-{job}.log").read_text()
