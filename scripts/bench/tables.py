"""The results as Markdown."""

import statistics
from collections.abc import Callable, Iterable

from growth import Answer
from load import Run

# Of each contestant, its runs of each kind of work.
Results = dict[str, dict[str, list[Run]]]


def table(head: list[str], rows: Iterable[list[str]], labels: int = 1) -> str:
    """A table whose first columns are labels, and whose other columns are numbers."""
    rule = ["---"] * labels + ["--:"] * (len(head) - labels)
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _median(runs: list[Run], figure: Callable[[Run], float | None]) -> float | None:
    values = [value for run in runs if (value := figure(run)) is not None]
    return statistics.median(values) if values else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def rates(results: Results) -> str:
    """The medians of each contestant's runs, one kind of work after the other."""
    head = ["work", "by", "requests/s", "p50 ms", "p99 ms", "CPU server", "database", "client", "others"]
    works = dict.fromkeys(work for runs in results.values() for work in runs)
    return table(
        head,
        ([work, name, *_figures(runs[work])] for work in works for name, runs in results.items() if work in runs),
        labels=2,
    )


def _figures(runs: list[Run]) -> list[str]:
    return [
        _number(_median(runs, lambda run: run.rate), ".0f"),
        _number(_median(runs, lambda run: run.p50_ms), ".1f"),
        _number(_median(runs, lambda run: run.p99_ms), ".1f"),
        _number(_median(runs, lambda run: run.server_us), ".0f"),
        _number(_median(runs, lambda run: run.database_us), ".0f"),
        _number(_median(runs, lambda run: run.client_us), ".0f"),
        _number(_median(runs, lambda run: run.others), ".0%"),
    ]


def ratios(results: Results, name: str) -> str:
    """How one contestant compares with each of the others."""
    mine = results[name]
    rows = [
        [f"of {other}", *(_ratio(mine[work], runs[work]) if work in runs else "-" for work in mine)]
        for other, runs in results.items()
        if other != name
    ]
    return table([name, *mine], rows)


def _ratio(mine: list[Run], theirs: list[Run]) -> str:
    """By rate and, in brackets, by CPU time: the medians of the rounds, because both ran in each."""
    rounds = list(zip(mine, theirs, strict=True))
    rate = statistics.median(one.rate / other.rate for one, other in rounds)
    cpu = statistics.median(other.cpu_us / one.cpu_us for one, other in rounds if one.cpu_us)
    return f"{rate:.2f} ({cpu:.2f})"


def capacity(runs: dict[str, list[Run]]) -> str:
    """What one program and PostgreSQL need for a request, and how many each could serve alone: the table of docs/scaling.md."""
    prop = [_median(found, lambda run: run.server_us) or 0 for found in runs.values()]
    database = [_median(found, lambda run: run.database_us) or 0 for found in runs.values()]

    def per_second(cores: float, costs: list[float]) -> list[str]:
        return [f"{cores * 1e6 / cost:,.0f}" if cost else "-" for cost in costs]

    rows = [
        ["prop, microseconds", *(f"{cost:,.0f}" for cost in prop)],
        ["PostgreSQL, microseconds", *(f"{cost:,.0f}" for cost in database)],
        ["one task, per second", *per_second(0.25, prop)],
        ["a `db.t3.micro` within its baseline, per second", *per_second(0.2, database)],
        ["a database with two free cores, per second", *per_second(2, database)],
    ]
    return table(["", *runs], rows)


def growth(columns: dict[str, tuple[dict[str, Answer], float]]) -> str:
    """The time of each request, and the peak memory; a column for each program and size."""
    requests = next(iter(columns.values()))[0]
    rows = [[request, *(str(found[request]) for found, _ in columns.values())] for request in requests]
    rows.append(["peak memory after these, MB", *(f"{peak:.0f}" for _, peak in columns.values())])
    return table(["milliseconds", *columns], rows)
