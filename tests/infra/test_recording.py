"""docs/recordings/deploy.cast shows what the scripts print today. tests/infra/recording.py records it anew."""

import json
import re
import subprocess
import sys

import pytest

from recording import RECORDING, ROOT, SESSION, Event, record

ANEW = "record it anew: cargo build && python3 tests/infra/recording.py"


def recorded() -> list[Event]:
    """The events of the recording, which is valid asciicast."""
    header, *lines = [json.loads(line) for line in RECORDING.read_text().splitlines()]
    assert header["version"] == 2 and header["width"] > 0 and header["height"] > 0, header
    for at, kind, text in lines:
        assert isinstance(at, int | float) and kind == "o" and isinstance(text, str)
    times = [at for at, _, _ in lines]
    assert times == sorted(times) and times[0] >= 0
    return [(at, text) for at, _, text in lines]


def on_screen(text: str) -> list[str]:
    """The lines that a terminal shows in the end, without colours and without progress lines that were written over."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+|\x1b", text):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif part.startswith("\x1b"):
            assert part.endswith("m"), f"the scripts send {part!r}, which is not known here"
        else:
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return lines


VOLATILE = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}": "ID",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z": "TIME",
    r"\b\d+:\d\d\b": "DURATION",
}


def without(volatile: dict[str, str], text: str) -> str:
    for pattern, name in volatile.items():
        text = re.sub(pattern, name, text)
    return text


def comparable(events: list[Event]) -> list[str]:
    """What is on the screen in the end, without what differs from run to run."""
    return [without(VOLATILE, line) for line in on_screen("".join(text for _, text in events))]


def test_the_recording_shows_what_the_scripts_print() -> None:
    expected, got = comparable(recorded()), comparable(record(seconds_between_polls=0.05, seconds_per_key=0))
    assert expected == got, ANEW


def test_the_recording_takes_a_while() -> None:
    """It is to be watched."""
    events = recorded()
    shown = "".join(text for _, text in events)
    assert all(command in shown for _, command, _ in SESSION)
    assert 20 < events[-1][0] < 120
    assert "\x1b[32m" in shown, "without colours"


def test_it_replays_without_asciinema() -> None:
    player = RECORDING.with_name("play.py")
    played = subprocess.run([sys.executable, player, "--speed", "100000"], check=True, capture_output=True)
    assert played.stdout.decode() == "".join(text for _, text in recorded())


# What differs between two deployments that go the same way.
OF_A_DEPLOYMENT = VOLATILE | {
    r"sha256:[0-9a-f]{12,64}": "IMAGE",
    r"\b[0-9a-f]{12}([0-9a-f]{28})?\b": "COMMIT",
    r"\b1\.4\.\d\b": "VERSION",
    r"\b(revision|Revision|task) \d+": r"\1 N",
}


def transcripts(text: str) -> list[str]:
    """What deploy.sh and rollback.sh print in the blocks of a document, if nothing is blocked and the ledger can be reached:
    the rest is not in the recording."""
    found = re.findall(r"^\$ \./scripts/(?:deploy|rollback)\.sh .*\n((?:(?!\$ |```).*\n)+)", text, re.MULTILINE)
    return [transcript for transcript in found if not re.search("^(blocked|warning): ", transcript, re.MULTILINE)]


@pytest.mark.parametrize("file", ["README.md", "docs/deploying.md"])
def test_the_transcripts_of_the_documents_are_as_recorded(file: str) -> None:
    known = {without(OF_A_DEPLOYMENT, line) for line in comparable(recorded())}
    found = transcripts((ROOT / file).read_text())
    assert found
    unknown = [line for transcript in found for line in transcript.splitlines() if without(OF_A_DEPLOYMENT, line) not in known]
    assert not unknown, f"the scripts do not print this (now): {unknown}"


# --- The comparison itself


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\r\nb\r\n", ["a", "b", ""]), ("\x1b[1mbold\x1b[0m", ["bold"]), ("long line\rshort", ["shortline"]),
        ("\r\x1b[K    0:01 waits\r\x1b[K    0:02 waits\r\x1b[Kdone\r\n", ["done", ""]), ("ab\x1b[K", ["ab"]),
    ],
)  # fmt: skip
def test_what_is_written_over_is_not_on_the_screen(text: str, lines: list[str]) -> None:
    assert on_screen(text) == lines


def test_only_what_is_volatile_may_differ() -> None:
    one = [(0.0, "deployment 01a21f6a-b51b-75e4-ad95-667c51dd1cd8, after 0:12.\r\n"), (1.0, "ok\r\n")]
    other = [(0.0, "deployment 01a21f6b-5c37-70ce-8d54-219467f0b4ae, after 10:15.\r\nok\r\n")]
    assert comparable(one) == comparable(other) == ["deployment ID, after DURATION.", "ok", ""]
    assert comparable(one) != comparable([(0.0, "deployment 01a21f6b-5c37-70ce-8d54-219467f0b4ae: 0:15.\r\nok\r\n")])
