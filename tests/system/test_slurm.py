"""`deploy/slurm/study.sbatch` itself, on two nodes: network namespaces of this machine, joined by a cable.

Slurm's own commands are stand-ins that do what the script asks of them: run a command on every node, name the nodes,
queue the job again. Ray, training and MLflow are real.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from study.trials.timing import read_timings
from tests.system.conftest import REPOSITORY, Workplace, kill_group

SCRIPT = REPOSITORY / "deploy" / "slurm" / "study.sbatch"
# What `sbatch` does: two nodes with names and addresses of their own, then the script on the first of them.
SBATCH = """
set -e
mount --bind "$FAKE/hosts" /etc/hosts
unshare --net sleep 1000 &
sleep 0.5
echo $! > "$FAKE/node1"
ip link add cable0 type veth peer name cable1 netns $!
for node in 0 1; do
    in_node="nsenter --net=/proc/$([ $node = 0 ] && echo self || echo $!)/ns/net"
    $in_node ip link set lo up
    $in_node ip address add 10.77.0.1$node/24 dev cable$node
    $in_node ip link set cable$node up
done
hostname node0
exec bash "$SCRIPT" "$@"
"""
SRUN = r"""#!/bin/sh
# Each node sees its own processes, as `ray stop` ends every Ray that it sees, and has its own /tmp/ray.
while [ "${1#--}" != "$1" ]; do shift; done
node='mount -t tmpfs none /tmp/ray; hostname "$0"; "$@"; exit $?'
mkdir -p /tmp/ray
alone="unshare --mount --uts --pid --fork --kill-child --mount-proc"
# It waits a minute for a head that is gone; two seconds will do here.
RAY_gcs_rpc_server_reconnect_timeout_s=2 nsenter --net="/proc/$(cat "$FAKE/node1")/ns/net" \
    $alone sh -c "$node" node1 "$@" >"$FAKE/node1.txt" 2>&1 &
code=0 other=0
$alone sh -c "$node" node0 "$@" || code=$?
wait $! || other=$?
echo "node0: $code, node1: $other"
exit $((code > other ? code : other))
"""
SCONTROL = """#!/bin/sh
[ "$1" = show ] && printf 'node0\\nnode1\\n' || echo "$@" >>"$FAKE/asked"
"""
NAMESPACES = ["unshare", "--map-root-user", "--mount", "--uts", "--net", "--pid", "--fork", "--kill-child"]


@pytest.fixture
def cluster(workplace: Workplace, tmp_path: Path) -> Workplace:
    """A folder with a study, and an environment in which Slurm's commands are found and a job has been allocated."""
    fake = tmp_path / "fake"
    (fake / "bin").mkdir(parents=True)
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (fake / "bin" / name).write_text(text)
        (fake / "bin" / name).chmod(0o755)
    (fake / "hosts").write_text("127.0.0.1 localhost\n10.77.0.10 node0\n10.77.0.11 node1\n")
    (fake / "bin" / "activate").write_text(f'PATH="{fake / "bin"}:{Path(sys.executable).parent}:$PATH"\n')
    workplace.environment |= {
        "FAKE": str(fake),
        "SCRIPT": str(SCRIPT),
        "ENVIRONMENT": str(fake),
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 3600),
    }
    return workplace


def sbatch(command: list[str], place: Workplace, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script, through a command that makes the nodes, to its end."""
    process = subprocess.Popen(
        [*command, *words],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=400)
    finally:
        kill_group(process)
    return subprocess.CompletedProcess(command, process.returncode, out)


def test_a_study_on_two_nodes_runs_to_its_end(cluster: Workplace, tiny: Callable[..., list[str]]) -> None:
    made = [*NAMESPACES, "--mount-proc", "sh", "-c", SBATCH, "sbatch"]
    possible = ["ip", "link", "add", "cable0", "type", "veth"]
    if shutil.which("ip") is None or subprocess.run([*NAMESPACES, *possible], capture_output=True).returncode:
        pytest.skip("no network namespaces can be made here (iproute2, and the permission to)")
    # All of resources=cluster but its GPUs, and less of what this machine has little of.
    small = [f"resources.{word}" for word in ("accelerator=cpu", "gpus=0", "cpus=1", "memory_gib=0.5")]
    said = sbatch(made, cluster, *tiny("space.replicates=1", *small))
    folder = cluster.folder / "studies" / "pbmc68k-tiny"
    other = (Path(cluster.environment["FAKE"]) / "node1.txt").read_text()
    assert said.returncode == 0, said.stdout + other
    assert "8 trained now" in said.stdout
    assert {status for _, status in cluster.runs()} == {"FINISHED"}
    assert len(cluster.runs()) == 8
    workers = {one.worker.split(":")[0] for one in read_timings(folder)}
    assert workers == {"node0", "node1"}, "both nodes trained"
    run = json.loads((folder / "run.json").read_text())
    assert run["host"] == "node0"
    assert (Path(cluster.environment["HOME"]) / ".ray" / "auth_token").is_file(), "it ran with a token"
    assert not (Path(cluster.environment["FAKE"]) / "asked").exists(), "a job that is done is not queued again"
    assert not list(cluster.folder.glob(".scanvi-study-*"))


@pytest.mark.parametrize(("code", "stages", "again"), [(124, 3, True), (124, 0, False), (1, 3, False)])
def test_a_job_is_queued_again_if_its_time_was_up_and_some_of_it_helped(
    code: int, stages: int, again: bool, cluster: Workplace, finished: Workplace, tiny: Callable[..., list[str]]
) -> None:
    fake = Path(cluster.environment["FAKE"])
    folder = cluster.folder / "studies" / "pbmc68k-tiny"
    folder.mkdir(parents=True)
    before = json.loads((finished.folder / "studies" / "pbmc68k-tiny" / "run.json").read_text())
    before["account"] |= {"done": 3, "stages_done": stages, "stages_total": 12}
    (folder / "run.json").write_text(json.dumps(before))
    # As a real one: what it returns itself is not what counts.
    (fake / "bin" / "srun").write_text(f'#!/bin/sh\necho "$@" >$FAKE/srun.txt\necho {code} >"$CODE"\nexit 1\n')
    said = sbatch(["bash", str(SCRIPT)], cluster, *tiny())
    assert said.returncode == code, said.stdout
    asked = (fake / "asked").read_text() if (fake / "asked").exists() else ""
    assert asked == ("requeue 42\n" if again else "")
    assert ("ask for more with --time" in said.stdout) == (code == 124 and not again)
    words = (fake / "srun.txt").read_text()
    assert "--address=node0:6379 --min-nodes=2 --num-cpus=1 --num-gpus=0" in words
    (seconds,) = re.findall(r"-- sh -c timeout --signal=INT .* (\d+) space=tiny", words)
    assert 2900 < int(seconds) <= 3000, "it stops ten minutes before its end"
