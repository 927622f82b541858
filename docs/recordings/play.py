#!/usr/bin/env python3
"""Replays a terminal recording (asciicast version 2) without asciinema.

    python3 docs/recordings/play.py [--speed N] [FILE]
"""

import argparse
import json
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay a terminal recording.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("deploy.cast"))
    parser.add_argument("--speed", type=float, default=1.0, help="2 is twice as fast")
    options = parser.parse_args()
    shown = 0.0
    for line in options.file.read_text().splitlines()[1:]:
        at, kind, text = json.loads(line)
        if kind == "o":
            time.sleep((at - shown) / options.speed)
            sys.stdout.write(text)
            sys.stdout.flush()
            shown = at


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
