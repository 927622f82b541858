"""What the project's Markdown files hold: fenced blocks, commands, headings and links."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
SHELLS = {"sh", "bash", "shell", "console"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its file, the line it starts on, its language, and its text."""

    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: ```{self.language} {self.first_line}"

    @property
    def first_line(self) -> str:
        """The first line that is no comment, without a prompt."""
        lines = (line.removeprefix("$ ").strip() for line in self.text.splitlines())
        return next((line for line in lines if line and not line.startswith("#")), "")

    @property
    def holds_commands(self) -> bool:
        """A block is for a shell by its language, or because a line of it has a prompt."""
        return self.language in SHELLS or self.has_prompt

    @property
    def has_prompt(self) -> bool:
        return any(line.startswith("$ ") for line in self.text.splitlines())

    @property
    def commands(self) -> list[str]:
        """The commands, with their continuation lines. Where there are prompts, the lines without one are output."""
        lines = iter(self.text.splitlines())
        if not self.has_prompt:
            return [joined(line, lines) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return [joined(line, lines).removeprefix("$ ") for line in lines if line.startswith("$ ")]


def joined(line: str, following: Iterator[str]) -> str:
    """The line with those that continue it: each but the last ends in a backslash."""
    while line.endswith("\\"):
        line += "\n" + next(following, "")
    return line


def words(command: str) -> list[str]:
    """The words of a command without its comment; none if quotes go on in a later line."""
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return []


def tracked_files() -> set[str]:
    """Every file that git tracks, relative to the root of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.rstrip("\0").split("\0"))


def markdown_files() -> list[str]:
    return sorted(file for file in tracked_files() if file.endswith(".md"))


def blocks(file: str, text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, also those in lists and quotes."""
    fences = (token for token in MARKDOWN.parse(text) if token.type == "fence")
    return [Block(file, token.map[0] + 1, (token.info.split() or [""])[0], token.content) for token in fences]


class Html(HTMLParser):
    """The anchors and links of HTML in a Markdown file."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


class Document:
    """The anchors, links and code spans of a Markdown file."""

    def __init__(self, text: str):
        self.anchors: set[str] = set()
        self.links: list[tuple[int, str]] = []
        self.code: list[tuple[int, str]] = []
        line, heading = 0, False
        for token in MARKDOWN.parse(text):
            line = token.map[0] + 1 if token.map else line
            if token.type == "inline":
                self.read(token, line)
                if heading:
                    self.add_heading(token)
            elif token.type == "html_block":
                self.read_html(token.content, line)
            heading = token.type == "heading_open"

    def read(self, inline: Token, line: int) -> None:
        for token in inline.children or []:
            if token.type in ("softbreak", "hardbreak"):
                line += 1
            elif token.type in ("link_open", "image"):
                self.links.append((line, str(token.attrGet("href") or token.attrGet("src") or "")))
            elif token.type == "code_inline":
                self.code.append((line, token.content))
            elif token.type == "html_inline":
                self.read_html(token.content, line)

    def read_html(self, text: str, line: int) -> None:
        html = Html()
        html.feed(text)
        self.anchors |= html.anchors
        self.links += [(line, link) for link in html.links]

    def add_heading(self, inline: Token) -> None:
        """GitHub's anchor; a heading that comes again gets -1, -2 and so on."""
        text = "".join(token.content for token in inline.children or [] if token.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        anchor, again = slug, 0
        while anchor in self.anchors:
            again += 1
            anchor = f"{slug}-{again}"
        self.anchors.add(anchor)
