"""The commands that the Markdown files tell people to type. Each block is typed here, word for word, in a clean clone of HEAD,
or is listed with the reason why it cannot be."""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from documents import ROOT, Block, blocks, markdown_files, words
from newcomer import Greeting, Terminal
from postgres import free_port, running_postgres
from prop import Prop

README = "README.md"
# The files whose ```sh blocks are typed, each from an empty ledger; and the problems with which prop is to answer there.
TYPED = {README: [], "docs/guides.md": ["gate_blocked"]}

NEEDS_AWS = "needs an AWS account; tests/infra runs these scripts against a stand-in"
NEEDS_GITHUB = "needs a repository on GitHub; tests/infra runs these scripts against a stand-in"
NEEDS_RELEASE = "needs a published release"
DIAGRAM = "a diagram"


@dataclass(frozen=True)
class NotRun:
    """A block that is not typed here, found by its file and how its first line begins, and why."""

    file: str
    begins: str
    reason: str

    def matches(self, block: Block) -> bool:
        return block.file == self.file and block.first_line.startswith(self.begins)


# The first block of the README: `cargo run` is typed here, and these are not.
FIRST_BLOCK_NOT_RUN = {"./scripts/test.sh": "it is what runs this test"}

NOT_RUN = [
    NotRun("CONTRIBUTING.md", "cargo run ", "the README's first block, and a part of what runs this test"),
    NotRun("README.md", "curl -fsSL -O https://github.com", NEEDS_RELEASE),
    NotRun("README.md", "docker run ", NEEDS_RELEASE + " and Docker"),
    NotRun("README.md", "export PROP_ENVIRONMENT=production", "needs a database server with TLS; tests/process starts prop in production"),
    NotRun("README.md", "./scripts/deploy.sh staging", NEEDS_AWS),
    NotRun("README.md", "internet", DIAGRAM),
    NotRun("README.md", "scripts/bootstrap.sh", NEEDS_AWS),
    NotRun("README.md", "flowchart LR", DIAGRAM),
    NotRun("docs/assignment.md", "scripts/bootstrap.sh", NEEDS_AWS),
    NotRun("docs/assignment.md", "cd terraform", NEEDS_AWS),
    NotRun("docs/aws.md", "scripts/bootstrap.sh", NEEDS_AWS),
    NotRun("docs/aws.md", "export TF_VAR_github_webhook_secret", NEEDS_AWS),
    NotRun("docs/aws.md", "scripts/db.sh production restore", NEEDS_AWS),
    NotRun("docs/aws.md", "scripts/db.sh production snapshot", NEEDS_AWS),
    NotRun("docs/deploying.md", "./scripts/deploy.sh staging", NEEDS_AWS),
    NotRun("docs/deploying.md", "./scripts/rollback.sh staging", NEEDS_AWS),
    NotRun("docs/deploying.md", "./scripts/status.sh staging", NEEDS_AWS),
    NotRun("docs/examples/README.md", "curl --header", "needs a pipeline's own names; tests/examples runs the examples"),
    NotRun("docs/examples/README.md", "export PROP_URL", "needs a rollout of the reader's own; tests/examples runs the examples"),
    NotRun("docs/webhooks.md", "PROP_GITHUB__WEBHOOK_SECRETS=", "needs secrets of the reader's own; tests/attack starts prop with such a setting"),
    NotRun("docs/guides.md", "sqlite3 prop.db", "needs the command-line tools of both databases"),
    NotRun("docs/releasing.md", "curl -fsSL -O https://github.com", NEEDS_RELEASE),
    NotRun("docs/releasing.md", "docker run ", NEEDS_RELEASE + " and Docker"),
    NotRun("docs/releasing.md", "cargo install --locked --git", NEEDS_RELEASE),
    NotRun("docs/releasing.md", "gh attestation verify", NEEDS_RELEASE),
    NotRun("docs/releasing.md", "git tag ", "makes a release"),
    NotRun("docs/recordings/README.md", "asciinema play", "needs asciinema; tests/infra/test_recording.py replays without it"),
    NotRun("docs/recordings/README.md", "cargo build", "rewrites the recording; tests/infra/test_recording.py runs the same session"),
    NotRun("docs/pipeline.md", "export PROP_URL=https://prop.example.org", NEEDS_GITHUB),
    NotRun("docs/pipeline.md", "export STAGING_ROLE_ARN", NEEDS_GITHUB),
    NotRun("docs/pipeline.md", "WEBHOOK_SECRET=", NEEDS_GITHUB),
]


def file_blocks(file: str) -> list[Block]:
    return blocks(file, (ROOT / file).read_text())


def to_type(found: Iterable[Block], not_run: Iterable[NotRun] = NOT_RUN) -> list[Block]:
    """The blocks of one file that are typed, in their order. The first block of the README starts prop."""
    typed = [block for block in found if block.file in TYPED and block.language == "sh"]
    typed = typed[1:] if typed and typed[0].file == README else typed
    return [block for block in typed if not any(one.matches(block) for one in not_run)]


def expected_answers(readme: list[Block]) -> list[tuple[Block, Block]]:
    """The JSON blocks of the README, each with the block before it, whose last command prints that."""
    return [(before, block) for before, block in zip(readme, readme[1:], strict=False) if block.language == "json" and before.language == "sh"]


def unaccounted(found: Iterable[Block], not_run: Iterable[NotRun] = NOT_RUN) -> list[str]:
    """The blocks that are neither typed nor listed: of the README all, of other files those with commands. And the entries
    of the list that match no block."""
    found, not_run = list(found), list(not_run)
    readme = [block for block in found if block.file == README]
    first = [block for block in readme if block.language == "sh"][:1]
    typed = first + to_type(readme, not_run) + [answer for _, answer in expected_answers(readme)]
    typed += to_type((block for block in found if block.file != README), not_run)
    concerned = [block for block in found if block.file == README or block.holds_commands]
    listed = [block for block in found if any(one.matches(block) for one in not_run)]
    faults = [f"neither typed nor listed: {block}" for block in concerned if block not in typed and block not in listed]
    faults += [f"listed, but there is no such block: {one.file}: {one.begins}" for one in not_run if not any(map(one.matches, found))]
    for command in (command for block in first for command in block.commands):
        plain = " ".join(words(command))
        if plain != "cargo run" and plain not in FIRST_BLOCK_NOT_RUN:
            faults.append(f"neither typed nor listed: {first[0].file}: {plain}")
    return faults


def test_every_block_is_typed_or_listed_with_a_reason() -> None:
    faults = unaccounted(block for file in markdown_files() for block in file_blocks(file))
    assert not faults, "\n".join(faults)


SCRIPT = re.compile(r'(?:\./)?(scripts/[\w-]+\.sh)([^|;&()"#\n]*)')


def test_scripts_and_their_options_exist() -> None:
    """Also in the blocks that cannot be run here."""
    faults, helps = [], {}
    for block in (block for file in markdown_files() for block in file_blocks(file) if block.holds_commands):
        for script, rest in SCRIPT.findall("\n".join(block.commands)):
            if script not in helps:
                exists = (ROOT / script).is_file()
                helps[script] = subprocess.run([ROOT / script, "--help"], check=True, capture_output=True, text=True).stdout if exists else None
            if helps[script] is None:
                faults.append(f"{block}: there is no {script}")
                continue
            for option in re.findall(r"--[a-z][\w-]*", rest.partition(" -- ")[0]):
                if not re.search(rf"{option}\b", helps[script]):
                    faults.append(f"{block}: {script} --help does not name {option}")
    assert not faults, "\n".join(faults)


# --- Typing


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_from_cargo_run_to_a_deployment_that_is_live(terminal: Terminal, database: str) -> None:
    """What the greeting prints, then the README; and on the other database the README on the empty ledger."""
    with first_start(terminal, database) as greeting:
        if database == "sqlite":
            type_greeting(terminal, greeting)
            type_blocks(terminal, greeting, README)
        else:
            type_blocks(terminal, greeting, README)
            type_greeting(terminal, greeting)
        live = ledger_of(greeting).get("/v1/services/checkout/environments/staging")["live"]
        assert (live["version"], live["state"]) == ("1.4.2", "succeeded"), live


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("file", [file for file in TYPED if file != README])
def test_the_commands_of_a_guide(terminal: Terminal, file: str, database: str) -> None:
    with first_start(terminal, database) as greeting:
        type_blocks(terminal, greeting, file)


@contextmanager
def first_start(terminal: Terminal, database: str) -> Iterator[Greeting]:
    """`cargo run`, as the README has it, on an empty ledger."""
    start = next(block for block in cloned_blocks(terminal, README) if block.language == "sh")
    command = next(command for command in start.commands if words(command) == ["cargo", "run"])
    for file in terminal.folder.glob("prop.db*"):
        file.unlink()
    with running_postgres() if database == "postgresql" else nullcontext() as server:
        variables = {"PORT": str(free_port())}
        if server:
            variables["DATABASE_URL"] = f"postgres://prop@127.0.0.1:{server}/prop"
        assert all(f"`{variable}`" in (terminal.folder / README).read_text() for variable in variables)
        with terminal.running(command, **variables) as greeting:
            assert greeting.url == f"http://127.0.0.1:{variables['PORT']}", greeting
            yield greeting
    assert (terminal.folder / "prop.db").exists() == (database == "sqlite")


def cloned_blocks(terminal: Terminal, file: str) -> list[Block]:
    return blocks(file, (terminal.folder / file).read_text())


def ledger_of(greeting: Greeting) -> Prop:
    return Prop(greeting.url, greeting.key, None)


def type_greeting(terminal: Terminal, greeting: Greeting) -> None:
    """Pastes the key and the curl commands that the greeting prints; its deployment is live then."""
    before = {place["service"] for place in places(greeting)}
    for command in greeting.commands:
        done = terminal.type(f"{greeting.export}\n{command}")
        printed = answers(done.stdout)
        assert done.returncode == 0 and printed, f"{command}\n{done.stdout}{done.stderr}"
        assert not problems(printed), f"{command}\n{printed}"
    new = [place for place in places(greeting) if place["service"] not in before]
    assert new and all(place["live"] and not place["running"] for place in new), f"not live:\n{greeting.text}\n{new}"


def type_blocks(terminal: Terminal, greeting: Greeting, file: str) -> None:
    """Types the blocks of a file, with the address and the key that the greeting has printed."""
    found = cloned_blocks(terminal, file)
    typed, marker = to_type(found), "--- the next block ---"
    script = f"\nprintf '\\n%s\\n' '{marker}'\n".join(block.text for block in typed)
    address, key = "http://127.0.0.1:8080", "PROP_KEY=prop_..."
    assert address in script and key in script
    done = terminal.type(script.replace(address, greeting.url).replace(key, f"PROP_KEY={greeting.key}"))
    printed = [answers(part) for part in done.stdout.split(marker)]
    got = [problem for part in printed for problem in problems(part)]
    assert [problem["code"] for problem in got] == TYPED[file], json.dumps(got, indent=1)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    for before, block in expected_answers(found):
        last = printed[typed.index(before)][-1]
        assert shows(json.loads(block.text), last), f"{block}\nprop answers: {json.dumps(last)}"


def places(greeting: Greeting) -> list[dict]:
    """Every place in which something was deployed, with its service."""
    services = ledger_of(greeting).get("/v1/status")["services"]
    return [place | {"service": service["slug"]} for service in services for place in service["places"]]


def answers(text: str) -> list[Any]:
    """The JSON documents that commands have printed, one after the other, with or without line ends."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while starts := re.compile(r"[\[{]").search(text, position):
        document, position = decoder.raw_decode(text, starts.start())
        found.append(document)
    return found


def problems(printed: list[Any]) -> list[dict]:
    """The errors among the answers."""
    return [answer for answer in printed if isinstance(answer, dict) and {"code", "request_id"} <= answer.keys()]


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def shows(documented: Any, got: Any) -> bool:
    """Whether an answer is as documented: fields may be left out there, and times differ."""
    if isinstance(documented, dict) and isinstance(got, dict):
        return all(name in got and shows(value, got[name]) for name, value in documented.items())
    if isinstance(documented, list) and isinstance(got, list):
        return len(documented) == len(got) and all(map(shows, documented, got))
    if isinstance(documented, str) and isinstance(got, str) and TIME.fullmatch(documented):
        return bool(TIME.fullmatch(got))
    return documented == got


def test_the_command_that_runs_the_tests_explains_itself(terminal: Terminal) -> None:
    """The command itself runs this test."""
    done = terminal.type("./scripts/test.sh --help")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("Usage: scripts/test.sh"), done
    parts = re.findall(r"^  (\w+)  +\S", done.stdout, re.MULTILINE)
    assert {"lint", "app", "infra", "browser"} <= set(parts), done.stdout
    done = terminal.type("./scripts/test.sh nonsense")
    assert (done.returncode, done.stdout) == (2, ""), done
    assert all(word in done.stderr for word in ("nonsense", *parts)), done.stderr


# --- The checks themselves

SAMPLE = """
```sh
cargo run            # the server
./scripts/test.sh    # every test
```

```sh
api /v1/status
```

```json
{"allowed": false}
```

- in a list:

  ```console
  $ scripts/deploy.sh staging 1.4.2 \\
      --migrate-first
  ok
  ```
"""
LISTED = NotRun(README, "scripts/deploy.sh", NEEDS_AWS)


def faults_of(text: str, not_run: list[NotRun], file: str = README) -> list[str]:
    return unaccounted(blocks(file, text), not_run)


def test_a_block_that_is_neither_typed_nor_listed_is_found() -> None:
    assert faults_of(SAMPLE, [LISTED]) == []
    assert faults_of(SAMPLE, []) == ["neither typed nor listed: README.md:17: ```console scripts/deploy.sh staging 1.4.2 \\"]
    for new in ("```console\n$ terraform destroy\n```", "```\n$ terraform destroy\n```", "```bash\nterraform destroy\n```", "```text\na\n```", "```\na\n```"):
        assert len(faults_of(SAMPLE + new, [LISTED])) == 1, new
    # In other files those that hold commands.
    for new in ("```sh\nmake\n```", "```text\n$ make\n```"):
        assert len(faults_of(new, [], "docs/a.md")) == 1, new
    assert faults_of("```text\na picture\n```", [], "docs/a.md") == []


def test_a_new_command_in_the_first_block_is_found() -> None:
    assert faults_of(SAMPLE.replace("cargo run ", "cargo run\nmake "), [LISTED]) == ["neither typed nor listed: README.md: make"]


def test_an_entry_that_matches_no_block_is_found() -> None:
    stale = NotRun(README, "scripts/gone.sh", NEEDS_AWS)
    assert faults_of(SAMPLE, [LISTED, stale]) == ["listed, but there is no such block: README.md: scripts/gone.sh"]


def test_blocks_are_split_into_commands() -> None:
    _, typed, answer, console = blocks(README, SAMPLE)
    assert to_type(blocks(README, SAMPLE), []) == [typed]
    assert expected_answers(blocks(README, SAMPLE)) == [(typed, answer)]
    assert console.commands == ["scripts/deploy.sh staging 1.4.2 \\\n    --migrate-first"]


def test_commands_of_a_greeting_are_found_by_their_shape() -> None:
    greeting = Greeting(
        "prop is ready: http://127.0.0.1:4711/\n\n  export PROP_KEY=prop_abc\n\n1. Record it:\n\n"
        "  curl -s http://127.0.0.1:4711/v1/deployments \\\n    -d '{}'\n\n2. Look:\n\n  curl -s http://127.0.0.1:4711/v1/status\n"
    )
    assert greeting.commands == ["curl -s http://127.0.0.1:4711/v1/deployments \\\n    -d '{}'", "curl -s http://127.0.0.1:4711/v1/status"]
    assert (greeting.key, greeting.url, greeting.ready) == ("prop_abc", "http://127.0.0.1:4711", True)


def test_an_answer_that_differs_from_the_documented_one_is_found() -> None:
    documented = {"allowed": False, "reasons": [{"code": "soaking", "until": "2026-02-03T04:35:06Z"}]}
    got = {"allowed": False, "reasons": [{"code": "soaking", "until": "2027-01-01T00:00:00.5Z", "more": 1}], "advice": []}
    assert shows(documented, got)
    assert not shows(documented, got | {"allowed": True})
    assert not shows(documented, got | {"reasons": []})
    assert not shows({"until": "2026-02-03T04:35:06Z"}, {"until": "soon"})
    assert answers('{"a": 1}\n[2]{"b": 3}') == [{"a": 1}, [2], {"b": 3}]
