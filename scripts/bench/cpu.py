"""How much CPU time processes have used, and the whole machine, from /proc."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may contain spaces. The first is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def of_process(pid: int) -> float:
    """Seconds that a process has used with all its threads, those that have ended included."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) * TICK


def of_family(pid: int) -> float:
    """Seconds that a process has used with its children, those that have ended included."""
    while True:
        ended = _of_ended_children(pid)
        used = of_process(pid) + sum(_of_child(pid, int(entry.name)) for entry in Path("/proc").glob("[0-9]*"))
        # A child that ended meanwhile is in neither.
        if _of_ended_children(pid) == ended:
            return used + ended


def _of_ended_children(pid: int) -> float:
    return sum(int(field) for field in _fields(pid)[13:15]) * TICK


def _of_child(parent: int, pid: int) -> float:
    try:
        return of_process(pid) if int(_fields(pid)[1]) == parent else 0.0
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has just ended, and its parent counts it


def of_clients() -> float:
    """Seconds that the programs that this one has waited for have used: wrk and pgbench."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_machine() -> float:
    """Seconds that the cores were not free, because something ran on them or the hypervisor had taken them ("steal")."""
    user, nice, system, _idle, _iowait, *rest = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, *rest[:3]))) * TICK


@dataclass
class Use:
    """Seconds of CPU time since the start, or during a run."""

    server: float
    database: float
    client: float
    machine: float

    @classmethod
    def now(cls, servers: list[int], postmaster: int | None) -> "Use":
        """Of the servers, of PostgreSQL if there is one, of the client and of the machine."""
        database = of_family(postmaster) if postmaster else 0.0
        return cls(sum(map(of_process, servers)), database, of_clients(), of_machine())

    def since(self, earlier: "Use") -> "Use":
        """What was used after `earlier`."""
        mine, theirs = vars(self), vars(earlier)
        return Use(**{name: mine[name] - theirs[name] for name in mine})

    def others(self, seconds: float) -> float:
        """The share of the machine that all other processes used during a run of so many seconds."""
        ours = self.server + self.database + self.client
        return min(1.0, max(0.0, (self.machine - ours) / (seconds * CORES)))  # ticks are rounded
