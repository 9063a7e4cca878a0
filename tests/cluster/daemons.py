"""A real one-node Slurm with accounting, in a folder of its own: started by the tests, stopped by process id.

Nothing outside the folder is read or written: munge, MariaDB and Slurm get their own keys, data, sockets and ports. The node has two GPUs that
Slurm counts and hands out (`/dev/null` and `/dev/zero`): enough to test requests and queueing; nothing computes on them.
"""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ADMIN_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ACCOUNT = "tests"
PARTITION = "short"
START_S = 60
STOP_S = 20
# what is left to the machine when Slurm's memory is counted
RESERVED_MB = 1024
# seconds a requeued job is held back: so long may a job's old credential live
CREDENTIAL_S = 5


class Cluster:
    """The daemons of one Slurm cluster.

    Args:
        folder: where its state goes; its path must be short enough for a socket (about 90 characters)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = platform.node().split(".")[0]
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.ports = dict(zip(("slurmctld", "slurmd", "slurmdbd", "mariadb"), free_ports(4), strict=True))
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start munge, the database, and Slurm's three daemons, each after the one it needs."""
        for name in ("munge", "mariadb", "state", "spool", "logs"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self._start_munge()
        self._start_mariadb()
        self._write_configuration()
        self._start("slurmdbd", "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: answers(self.ports["slurmdbd"]))
        self.call("sacctmgr", "-i", "add", "cluster", "tests")
        self.call("sacctmgr", "-i", "add", "account", ACCOUNT, "cluster=tests")
        self.call("sacctmgr", "-i", "add", "user", getpass.getuser(), f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}")
        self._start("slurmctld", "slurmctld", "-D", "-i")
        self._wait("slurmctld", lambda: self._succeeds("scontrol", "ping"))
        self._start("slurmd", "unshare", *self._node_namespace(), "slurmd", "-D")
        self._wait("slurmd", lambda: self.call("sinfo", "-h", "-o", "%T").strip() == "idle")

    def call(self, *command: str) -> str:
        """What a Slurm command prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def stop(self) -> None:
        """End the jobs that are left, then the daemons, last started first."""
        with suppress(RuntimeError, OSError):
            self.call("scancel", f"--user={getpass.getuser()}")
            self._wait("the last jobs to end", lambda: not self.call("squeue", "-h"), STOP_S)
        for _name, process in reversed(self.processes):
            with suppress(psutil.Error):
                # munged and mariadbd are started by a small parent
                for child in (*psutil.Process(process.pid).children(recursive=True), process):
                    child.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def _node_namespace(self) -> list[str]:
        """Show the node this cluster's configuration in /etc/slurm: the jobs' own `srun` is not told of another place.

        Snakemake's job steps drop SLURM_CONF. The mount is in a namespace of the node's daemon; the machine's /etc/slurm stays as it is.
        """
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        command = 'mount --bind "$0" /etc/slurm && exec "$@"'
        return [*user, "--mount", "--propagation", "private", "sh", "-c", command, str(self.folder)]

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.chmod(0o755)
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o400)
        paths = [f"--{name}-file={folder / name}" for name in ("key", "log", "pid", "seed")]
        # munged distrusts a socket in a folder that others may write to, as /tmp is
        self._start("munged", "munged", "--foreground", "--force", f"--socket={folder / 'socket'}", *paths)
        self._wait("munged", (folder / "socket").exists)

    def _start_mariadb(self) -> None:
        folder = self.folder / "mariadb"
        places = [f"--datadir={folder / 'data'}", f"--user={getpass.getuser()}"]
        self.call("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", *places)
        network = [f"--port={self.ports['mariadb']}", "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]
        # slurmdbd wants these sizes; durability is of no use here
        sizes = ["--innodb-lock-wait-timeout=900", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
        pid = f"--pid-file={folder / 'pid'}"
        self._start("mariadbd", "mariadbd", "--no-defaults", *places, *network, *sizes, pid)
        self._wait(
            "mariadbd",
            lambda: self._succeeds("mariadb-admin", "--no-defaults", f"--socket={folder / 'socket'}", "--user=root", "ping"),
        )
        self.password = secrets.token_hex(16)
        statements = [
            "CREATE DATABASE slurm",
            f"CREATE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{self.password}'",
            f"CREATE USER 'slurm'@'localhost' IDENTIFIED BY '{self.password}'",
            "GRANT ALL ON slurm.* TO 'slurm'@'127.0.0.1'",
            "GRANT ALL ON slurm.* TO 'slurm'@'localhost'",
        ]
        self.call("mariadb", "--no-defaults", f"--socket={folder / 'socket'}", "--user=root", "-e", "; ".join(statements))

    def _write_configuration(self) -> None:
        user, folder, node = getpass.getuser(), self.folder, self.node
        cores, memory = os.cpu_count() or 1, psutil.virtual_memory().total // 2**20 - RESERVED_MB
        database = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/munge/socket",
            "DbdHost": "localhost",
            "DbdPort": self.ports["slurmdbd"],
            "SlurmUser": user,
            "LogFile": folder / "logs/slurmdbd",
            "PidFile": folder / "slurmdbd.pid",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self.ports["mariadb"],
            "StorageUser": "slurm",
            "StoragePass": self.password,
            "StorageLoc": "slurm",
        }
        write_settings(folder / "slurmdbd.conf", database)
        (folder / "slurmdbd.conf").chmod(0o600)
        settings = {
            "ClusterName": "tests",
            "SlurmctldHost": f"{node}(127.0.0.1)",
            "SlurmctldPort": self.ports["slurmctld"],
            "SlurmdPort": self.ports["slurmd"],
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/munge/socket,cred_expire={CREDENTIAL_S}",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd.pid",
            "SlurmctldLogFile": folder / "logs/slurmctld",
            "SlurmdLogFile": folder / "logs/slurmd",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "JobAcctGatherType": "jobacct_gather/linux",
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "localhost",
            "AccountingStoragePort": self.ports["slurmdbd"],
            "AccountingStoragePass": f"{folder}/munge/socket",
            "AccountingStorageEnforce": "associations",
            "AccountingStorageTRES": "gres/gpu",
            "AccountingStoreFlags": "job_comment",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=5,bf_interval=5",
            "ReturnToService": 2,
            "KillWait": 20,
            "GresTypes": "gpu",
        }
        write_settings(folder / "slurm.conf", settings)
        with (folder / "slurm.conf").open("a", encoding="utf-8") as file:
            file.write(f"NodeName={node} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:2\n")
            file.write(f"PartitionName={PARTITION} Nodes={node} Default=YES MaxTime=1-0 State=UP\n")
        lines = [f"NodeName={node} Name=gpu File={device}" for device in ("/dev/null", "/dev/zero")]
        (folder / "gres.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _start(self, name: str, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=ADMIN_PATH)
        if not path:
            raise RuntimeError(f"{program} is not installed; run: python3 tests/cluster/install.py")
        with (self.folder / "logs" / f"{name}.out").open("wb") as output:
            # a session of their own: Ctrl-C at the terminal reaches the tests, which then stop the daemons in order
            process = subprocess.Popen(
                [path, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append((name, process))

    def _succeeds(self, *command: str) -> bool:
        try:
            self.call(*command)
        except RuntimeError:
            return False
        return True

    def _wait(self, what: str, done: Callable[[], bool], limit_s: float = START_S) -> None:
        end = time.monotonic() + limit_s
        while not done():
            gone = [name for name, process in self.processes if process.poll() is not None]
            if gone or time.monotonic() > end:
                logs = "\n".join(f"--- {path}\n{tail(path)}" for path in sorted((self.folder / "logs").iterdir()))
                raise RuntimeError(f"waited for {what}; ended: {gone or 'none'}\n{logs}")
            time.sleep(0.1)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """A running cluster; its daemons end with the block."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def write_settings(path: Path, settings: dict[str, object]) -> None:
    """Write `key=value` lines."""
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if path.is_file() else ""
