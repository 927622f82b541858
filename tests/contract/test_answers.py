"""Every answer is one that the document allows, whatever is sent. schemathesis.toml says how that is checked."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def test_answers_keep_to_the_document(prop, own_key_id, document):
    schemathesis = Path(sys.executable).with_name("schemathesis")
    command = [schemathesis, "--no-color", "--config-file", HERE / "schemathesis.toml", "run", document, "--url", prop.url]
    # Where the configuration names its hooks by a path, that path is relative to the working directory.
    environment = {**os.environ, "PROP_KEY": prop.key, "PROP_KEY_ID": own_key_id}
    run = subprocess.run(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    print(run.stdout)
    assert run.returncode == 0
