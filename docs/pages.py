"""Pages of the site that are made from the program itself, when the site is built: commands and configuration."""

import os
import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from bldml.commands import COMMANDS

WIDTH = "100"  # columns of the help
LIGHTNING = ("fit", "validate", "test", "predict")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, text in (("commands", _commands()), ("configuration", _configuration())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _said(*arguments: str) -> str:
    environment = os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "bldml", *arguments]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return found.stdout.strip()


def _commands() -> str:
    parts = ["# Commands", "What each command says with `--help=all`; `--help` is shorter."]
    for name in (*LIGHTNING, *COMMANDS, "doctor"):
        shown = _said(name, "--help=all")
        parts += [f"## {name}", f"```text\n{shown}\n```"]
    return "\n\n".join(parts)


def _configuration() -> str:
    text = "Every key of `bldml fit` with its default, as `python -m bldml fit --print_config` writes them."
    shown = _said("fit", "--print_config")
    return f"# Configuration\n\n{text} Any key can be set on the command line.\n\n```yaml\n{shown}\n```\n"
