"""A Slurm of one's own: Debian's slurmctld and slurmd on two nodes, which are network namespaces joined by a cable.

All of it lives in one PID namespace and ends with the first process in that. Nobody outside can reach
its ports, and its files are in one folder.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

WAIT = 300  # seconds: the machine may be busy
HOSTS = """127.0.0.1 localhost
10.77.0.10 node0
10.77.0.11 node1
"""
CONFIGURATION = """
ClusterName=test
SlurmctldHost=node0
SlurmUser=root
AuthType=auth/munge
# cred_expire: also how long a job that is queued again waits, by default two minutes.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2
KillWait=5
MessageTimeout=60
BatchStartTimeout=120
GresTypes=gpu
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=node[0-1] CPUs=16 RealMemory=8000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# A node has its own processes, as `ray stop` ends every Ray that it sees, and its own /tmp/ray, /dev/shm and munged.
# A shell stays the first of its processes, for that one is the parent of every orphan.
NODE = """
mount -t tmpfs -o mode=1777 none /tmp/ray
mount -t tmpfs -o mode=1777 none /dev/shm
hostname "$0"
ip link set lo up
ip link set "$1" up
ip address add "$2/24" dev "$1"
eval "$MUNGED"
slurmd -D
exit
"""
MUNGED = """
mount -t tmpfs -o mode=755 none munge
munged --force --socket=munge/socket --key-file=key/key --pid-file=munge/pid --seed-file=munge/seed --log-file=munge/log
"""
MACHINE = """
cd "$FOLDER"
mkdir -p /tmp/ray
mount --bind hosts /etc/hosts
hostname node0
eval "$MUNGED"
ip link add cable0 type veth peer name cable1
node="unshare --mount --uts --pid --fork --kill-child --mount-proc"
$node sh -ec "$NODE" node0 cable0 10.77.0.10 &
wait_for_cable="until ip link show cable1 >/dev/null 2>&1; do sleep 0.1; done"
unshare --net $node sh -ec "$wait_for_cable; $NODE" node1 cable1 10.77.0.11 &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.1; done
ip link set cable1 netns $!
slurmctld -D
exit
"""
NAMESPACES = [
    "setpriv",
    "--pdeathsig=KILL",
    "unshare",
    "--mount",
    "--uts",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons and network namespaces need root"
    for program, package in {
        "ip": "iproute2",
        "munged": "munge",
        "slurmctld": "slurm-wlm",
        "slurmd": "slurm-wlm",
    }.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian's package {package})"
    tried = [*NAMESPACES, "ip", "link", "add", "cable0", "type", "veth"]
    made = subprocess.run(tried, capture_output=True, text=True)
    return f"no network namespaces can be made here: {made.stderr.strip()}" if made.returncode else None


class Slurm:
    """A running cluster, and what a user does on it."""

    def __init__(self, folder: Path) -> None:
        """Start it in an empty folder that all users can read."""
        self.folder = folder
        for name, mode in {"munge": 0o755, "key": 0o700, "state": 0o700}.items():
            (folder / name).mkdir(mode=mode)
        (folder / "key" / "key").write_bytes(os.urandom(128))
        (folder / "key" / "key").chmod(0o600)
        (folder / "hosts").write_text(HOSTS)
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
        # GPUs that are only counted: Slurm wants a file for each.
        for number in range(4):
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
        self.configuration = folder / "slurm.conf"
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        self.environment = {"PATH": path, "SLURM_CONF": str(self.configuration)}
        # What the daemons inherit, jobs see: nothing of the test's own.
        own = {**self.environment, "FOLDER": str(folder), "NODE": NODE, "MUNGED": MUNGED}
        with (folder / "machine.log").open("w") as log:
            command = [*NAMESPACES, "bash", "-ec", MACHINE]
            self.machine = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait(lambda: self.does("sinfo", "--noheader", "--format=%T %D").strip() == "idle 2", "two idle nodes")
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End it: with the first process of its namespace all others end."""
        for process in self._first():
            os.kill(int(process), signal.SIGKILL)
        self.machine.kill()
        self.machine.wait()

    def _first(self) -> list[str]:
        """The first process inside, once there is one."""
        try:
            return Path(f"/proc/{self.machine.pid}/task/{self.machine.pid}/children").read_text().split()
        except FileNotFoundError:
            return []

    def logs(self) -> str:
        """What its daemons said last."""
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def wait(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        until = time.monotonic() + WAIT
        while not reached():
            assert self.machine.poll() is None and time.monotonic() < until, f"not reached: {what}\n{self.logs()}"
            time.sleep(0.2)

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job, with times in seconds since 1970."""
        said = self.does("scontrol", "show", "job", number, environment={"SLURM_TIME_FORMAT": "%s"}, check=True)
        return dict(re.findall(r"(\w+)=(\S*)", said))

    def does(
        self,
        *command: str,
        user: int = 0,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> str:
        """Run a command on the first node, as a user, and return what it printed."""
        first = self._first()
        if not first:
            return ""
        inside = ["nsenter", f"--target={first[0]}", "--mount", "--uts", "--net", "--pid"]
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        done = subprocess.run(
            [*inside, "env", f"--chdir={folder or self.folder}", *who, *command],
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=WAIT,
        )
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout
