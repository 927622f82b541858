"""scripts/bench.sh: its arguments, what it reads from its tools, and a run with few rows, whose figures mean nothing."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from postgres import programs
from prop import BINARY
from scripts import ROOT, run

BENCH = ROOT / "scripts" / "bench"
SETTINGS = {
    "DEPLOYMENTS": "1000",
    "LARGE": "0",
    "DURATION": "1",
    "ROUNDS": "1",
    "STARTS": "1",
    "CONNECTIONS": "4",
    "PEER": "none",
}
WRK_REPORT = """Running 1s test @ http://127.0.0.1:4000
  2 threads and 4 connections
RESULT 5012 4987 3.45 10.37 {failed}
"""
PGBENCH_REPORT = """number of clients: 16
number of transactions actually processed: 812
number of failed transactions: {failed} (0.000%)
tps = 801.250000 (without initial connection time)
"""


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "PG_BIN": "/usr/bin"}.items():
            patch.setenv(name, value)
        patch.syspath_prepend(BENCH)
        import cpu
        import growth
        import load
        import pgbench
        import tables

        return SimpleNamespace(cpu=cpu, growth=growth, load=load, pgbench=pgbench, tables=tables)


def test_help_names_every_setting():
    result = run("bench.sh", "--help")
    assert result.returncode == 0
    read = set(re.findall(r'os\.environ\["(\w+)"\]', (BENCH / "settings.py").read_text())) - {"PG_BIN"}
    assert read == SETTINGS.keys()
    assert read == set(re.findall(r"^  ([A-Z]+)  ", result.stdout, re.MULTILINE))


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (["--quick"], {}, "unknown option '--quick'"),
        (["no-such-file"], {}, "'no-such-file' is no program"),
        (["before=no-such-file"], {}, "'no-such-file' is no program"),
        ([], {"DURATION": "5s"}, "DURATION must be a number, not '5s'"),
        ([], {"DEPLOYMENTS": "1500"}, "must be multiples of 1000"),
        ([], {"DEPLOYMENTS": "0"}, "must be multiples of 1000"),
    ],
)
def test_wrong_arguments_are_refused(arguments, environment, message):
    result = run("bench.sh", *arguments, **environment)
    assert result.returncode == 2 and message in result.stderr and not result.stdout


def test_the_report_of_wrk(bench):
    reached = bench.load.reached_by_wrk(WRK_REPORT.format(failed=0))
    assert (reached.requests, reached.rate, reached.p50_ms, reached.p99_ms) == (5012, 4987, 3.45, 10.37)
    for report in (WRK_REPORT.format(failed=1), "unable to connect"):
        with pytest.raises(SystemExit, match="requests failed"):
            bench.load.reached_by_wrk(report)


def test_the_report_of_pgbench(bench):
    reached = bench.load.reached_by_pgbench(PGBENCH_REPORT.format(failed=0))
    assert (reached.requests, reached.rate) == (812, 801.25)
    with pytest.raises(SystemExit, match="transactions failed"):
        bench.load.reached_by_pgbench(PGBENCH_REPORT.format(failed=1))


def test_pgbench_sends_each_statement_with_an_expression_for_each_parameter(bench):
    variables = {"s", "e", "v", "n", "deployments", "one", "page"}
    for script in bench.pgbench.SCRIPTS.values():
        assert not re.search(r"\$\d", script)
        # pgbench would replace other words after a colon by NULL.
        assert set(re.findall(r"(?<!:):(\w+)", script)) <= variables
    assert bench.pgbench.SCRIPTS["record"].count(";\n") == 6, "seven statements, the last without a line after it"


def test_a_process_is_counted_with_its_children_and_those_that_have_ended(bench):
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    program = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {spin!r}])
child = subprocess.Popen([sys.executable, "-c", {spin!r} + "\\nprint('spun', flush=True)\\nimport time\\ntime.sleep(60)"])
time.sleep(60)
"""
    # In a session of its own, so that the child ends with it.
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout and parent.stdout.readline() == "spun\n"
        assert bench.cpu.of_family(parent.pid) - bench.cpu.of_process(parent.pid) >= 0.38
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()


def test_a_child_that_ends_during_the_count_is_counted(bench, monkeypatch):
    # First 100 ticks of a running child; then it ends, before the children are counted.
    counts = iter([0, 100, 100, 100])
    monkeypatch.setattr(bench.cpu, "_of_ended_children", lambda _: next(counts))
    monkeypatch.setattr(bench.cpu, "_of_child", lambda *_: 0.0)
    monkeypatch.setattr(bench.cpu, "of_process", lambda _: 7.0)
    assert bench.cpu.of_family(1) == 107.0


def test_a_ratio_is_by_rate_and_by_cpu_time(bench):
    def runs(*rates: float, cpu: float):
        return [bench.load.Run(rate, 1.0, 2.0, cpu / 2, cpu / 4, cpu / 4, 0.1) for rate in rates]

    results = {
        "prop": {"read": runs(300, 100, 200, cpu=50), "record": runs(10, 10, 10, cpu=900)},
        "pgbench": {"read": runs(200, 100, 50, cpu=100)},
    }
    assert bench.tables.ratios(results, "prop") == (
        "| prop | read | record |\n|---|--:|--:|\n| of pgbench | 1.50 (2.00) | - |\n"
    )
    assert "| read | prop | 200 | 1.0 | 2.0 | 25 | 12 | 12 | 10% |\n" in bench.tables.rates(results)


def test_capacity_follows_from_cpu_time(bench):
    runs = {"read": [bench.load.Run(1, 1.0, 2.0, cost, 100, 20, 0.1) for cost in (40, 50, 90)]}
    rows = bench.tables.capacity(runs).splitlines()[2:]
    assert [row.split("|")[2].strip() for row in rows] == ["50", "100", "5,000", "2,000", "20,000"]


def test_a_time_says_when_there_was_no_answer(bench):
    texts = [str(bench.growth.Answer(ms, status)) for ms, status in ((0.42, 200), (1234.5, 200), (10002.1, 503))]
    assert texts == ["0.4", "1234", "503 after 10002"]


def missing_tools() -> list[str]:
    found = programs()
    tools = {"wrk": shutil.which("wrk"), "sqlite3": shutil.which("sqlite3"), "pgbench": found and (found / "pgbench").exists()}
    return [name for name, path in tools.items() if not path]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below pytest's directories, which the user of PostgreSQL may not enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {missing_tools()}")
@pytest.mark.skipif(not BINARY.exists(), reason="prop is not built")
def test_a_run_with_few_rows_measures_everything(directory: Path):
    named = [f"{name}={BINARY}" for name in ("before", "after")]
    result = run("bench.sh", *named, timeout=600, TMPDIR=str(directory), **{**SETTINGS, "LARGE": "2000"})
    assert result.returncode == 0, result.stderr
    for title in ("PostgreSQL", "Capacity", "One process and three", "Single requests", "SQLite", "Start and memory"):
        assert f"\n### {title}" in result.stdout
    for work in ("read", "list", "record"):
        for name in ("before", "after", "pgbench, 16 clients", "1 process", "3 processes"):
            assert re.search(rf"^\| {work} \| {name} \| [1-9]", result.stdout, re.MULTILINE), f"{work}, {name}"
    assert "| after | read | list | record |" in result.stdout
    assert "| milliseconds | before, 1000 | after, 1000 | before, 2000 | after, 2000 |" in result.stdout
    assert not list(directory.iterdir()), "what it made is deleted"
