"""A real Slurm of one or two nodes, of this test session alone, that listens on the loopback interface alone."""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "scancel", "squeue", "setpriv")
# Where Debian keeps daemons, which not every PATH has.
SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
# More than the machine has: jobs wait most of the time, for Slurm and for the tests.
CPUS = 64
# A job in `low` that takes so many must go when one in `high` wants as many; jobs in `normal` take what is left.
LARGE = 40
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"})
PATIENCE_S = 300.0

# The shortest that Slurm takes for cred_expire is 5 s; a requeued job waits a second longer before it starts again.
CONFIGURATION = """\
ClusterName=bldml-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=0
MinJobAge=86400
KillWait={kill_wait}
DefMemPerCPU=50
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs={cpus} RealMemory=64000 State=UNKNOWN
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} Weight=2
NodeName=second NodeHostname={host} NodeAddr=127.0.0.1 Port={second_port} Weight=1
PartitionName=normal Nodes=node Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=low Nodes=node MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=120
PartitionName=cancelled Nodes=node MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=120
PartitionName=high Nodes=node MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=both Nodes=node,second MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
"""
# A save on two cores that ten other runs share may take seconds; a real cluster has 30 s.
KILL_WAIT_S = 10


def missing() -> str | None:
    """Why there can be no cluster here; None if there can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCH) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmd starts jobs as root alone"
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "no address"
    if not address.startswith("127."):
        # Slurm's programs listen on the address of the host's name, and a test must not be open to a network.
        return f"the host's name {host} leads to {address}, not to the loopback interface: see /etc/hosts"
    return None


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        cluster: Where.
        id: As scontrol takes it, with `_` and a number for one task of an array.
    """

    cluster: "Cluster"
    id: str

    def show(self) -> dict[str, str]:
        """What `scontrol show job` knows, by its own names."""
        words = self.cluster.command("scontrol", "show", "job", "-o", self.id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    @property
    def state(self) -> str:
        """Such as PENDING, RUNNING, COMPLETING or one of `ENDED`."""
        return self.show()["JobState"]

    @property
    def restarts(self) -> int:
        """How often Slurm has started it again."""
        return int(self.show()["Restarts"])

    @property
    def text(self) -> str:
        """Its log so far."""
        path = Path(self.show()["StdOut"])
        return path.read_text(errors="replace") if path.is_file() else ""

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait for something; fail the test with all that is known if it takes too long."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"it took longer than {seconds:.0f} s until {what}")
            time.sleep(0.5)

    def wait_for(self, *states: str, seconds: float = PATIENCE_S) -> str:
        """Wait for one of the states, and say which; fail if the job ends in another one."""

        def there() -> bool:
            state = self.state
            if state in ENDED and state not in states:
                self.fail(f"it is {state}, not {' or '.join(states)}")
            return state in states

        self.wait_until(there, f"it was {' or '.join(states)}", seconds)
        return self.state

    def signal(self, name: str) -> None:
        """Send a signal to the processes of its step, as Slurm does when the wall time is near."""
        self.cluster.command("scancel", f"--signal={name}", f"{self.id}.0")

    def cancel(self) -> None:
        """`scancel`."""
        self.cluster.command("scancel", self.id)

    def requeue(self) -> None:
        """Put it into the queue again, as an administrator does after a node has failed."""
        self.cluster.command("scontrol", "requeue", self.id)

    def fail(self, problem: str) -> None:
        """Fail the test with the job's log, what Slurm knows of it, and the controller's log."""
        shown = self.cluster.command("scontrol", "show", "job", self.id)
        controller = (self.cluster.folder / "log" / "slurmctld.log").read_text().splitlines()[-40:]
        pytest.fail(
            f"Job {self.id}: {problem}.\n--- log\n{self.text[-8000:]}\n--- scontrol show job\n{shown}\n--- slurmctld\n"
            + "\n".join(controller)
        )


class Cluster:
    """The daemons, and how to give them jobs.

    Args:
        folder: An empty folder for configuration, state and logs; short, because sockets lie in it.

    Attributes:
        nodes: The daemons of the nodes that were started, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN"))},
            "PATH": SEARCH,
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start everything; raises RuntimeError, with nothing left running, if the node does not come up."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir()
        munge = self.folder / "munge"
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (munge, key):
            shutil.chown(path, "munge", "munge")
        # munged insists on folders that only their owner may write to.
        munge.chmod(0o755)
        controller_port, node_port, second_port = free_ports(3)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname(), folder=self.folder, controller_port=controller_port, node_port=node_port,
                second_port=second_port, cpus=CPUS, kill_wait=KILL_WAIT_S,
            )
        )  # fmt: skip
        as_munge = ("--reuid=munge", "--regid=munge", "--clear-groups")
        files = (f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed"))
        self._daemon("munged", "--foreground", f"--socket={munge}/socket", *files, "--origin=127.0.0.1", user=as_munge)
        self._wait((munge / "socket").exists, "munged")
        self._daemon("slurmctld", "-D")
        self._wait(lambda: self._run("scontrol", "ping").returncode == 0, "slurmctld")
        self._start_node("node")

    def start_second_node(self) -> None:
        """Start the second node, which only jobs in the partition `both` use, and those first."""
        if "second" not in self.nodes:
            self._start_node("second")

    def _start_node(self, name: str) -> None:
        self._daemon("slurmd", "-D", "-N", name)
        self._wait(lambda: "idle" in self._run("sinfo", "-h", "-n", name, "-o", "%t").stdout.split(), "slurmd")
        self.nodes[name] = self._daemons[-1]

    def _daemon(self, program: str, *arguments: str, user: Sequence[str] = ()) -> None:
        # Ends with the process of the tests, even if that is killed.
        command = ["setpriv", "--pdeathsig=TERM", *user, str(shutil.which(program, path=SEARCH)), *arguments]
        with (self.folder / "log" / f"{program}.out").open("ab") as out:
            process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        self._daemons.append(process)

    def _wait(self, condition: Callable[[], bool], program: str) -> None:
        end = time.monotonic() + 60
        while not condition():
            if time.monotonic() > end or self._daemons[-1].poll() is not None:
                logs = sorted((self.folder / "log").iterdir())
                tails = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
                raise RuntimeError(f"{program} did not come up.\n{tails}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End all jobs and daemons."""
        if self.nodes:
            self._run("scancel", "--full", "--signal=KILL", "--user=root")
            self._run("scancel", "--user=root")
            end = time.monotonic() + 2 * KILL_WAIT_S
            while time.monotonic() < end and self._run("squeue", "-h", "-o", "%i").stdout.strip():
                time.sleep(0.25)
        for process in reversed(self._daemons):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for number in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Whatever still runs of this cluster: each of its processes knows its configuration."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)

    def command(self, *command: str) -> str:
        """Run a program of Slurm and return what it prints; fail the test if it fails."""
        done = self._run(*command)
        if done.returncode != 0:
            pytest.fail(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def submit(
        self,
        script: Path,
        *arguments: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path,
    ) -> Job:
        """Submit a script.

        Args:
            script: The script.
            arguments: Its arguments.
            options: For sbatch; they win over the script's own lines.
            environment: Variables that the job gets beside those of the tests.
            folder: Where it is submitted from.
        """
        done = subprocess.run(
            ["sbatch", "--parsable", *options, str(script), *arguments],
            env={**self.environment, **(environment or {})}, cwd=folder, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.fail(f"sbatch: {done.stderr}")
        return Job(self, done.stdout.strip())

    def session(
        self, script: str, *options: str, folder: Path, terminal: bool = False, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Do in a session of salloc what a person would type there.

        Args:
            script: For bash.
            options: For salloc.
            folder: Where it is typed.
            terminal: Whether there is a terminal, which then shows errors among the output.
            environment: Variables that the session gets beside those of the tests.
        """
        words = ["salloc", "--quiet", *options, "bash", "-c", script]
        command = ["script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null"] if terminal else words
        return subprocess.run(
            command, env={**self.environment, **environment}, cwd=folder, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
        )  # fmt: skip

    def preempt(self) -> Job:
        """A short job in `high` that a large one in `low` has to make room for."""
        script = self.folder / "preemptor.sbatch"
        script.write_text("#!/bin/bash\nsleep 1\n")
        options = ("--partition=high", f"--ntasks={LARGE}", "--job-name=preemptor", "--output=/dev/null")
        return self.submit(script, options=options, folder=self.folder)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
