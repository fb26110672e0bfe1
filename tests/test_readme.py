"""What the README and the documentation tell a user to type can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from bldml.commands import COMMANDS
from tests.support import REPOSITORY, Bldml

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCS = {path: path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "docs").rglob("*.md"))}
PAGES = "\n".join([README, *DOCS.values()])
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGES, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`(python -m bldml [^`]+)`", PAGES)
COMMAND_LINES = dict.fromkeys(line for line in [*LINES, *INLINE] if line.startswith("python -m bldml "))
TYPED = [shlex.split(line, comments=True)[3:] for line in COMMAND_LINES if "…" not in line]


def test_commands_were_found() -> None:
    verbs = {arguments[0] for arguments in TYPED}
    assert "--print_completion=shtab-bash" in verbs
    assert {"fit", "test", "predict", "validate", "prefetch", "doctor"} <= verbs
    assert len(TYPED) > 15


@pytest.mark.parametrize("arguments", TYPED, ids=[" ".join(arguments) for arguments in TYPED])
def test_command_is_understood(arguments: list[str], run: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # for configs/
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    if "--ckpt_path" in arguments:
        arguments[arguments.index("--ckpt_path") + 1] = str(run / "checkpoints" / "best.ckpt")
    arguments = [str(run) if argument == "lightning_logs/<run>" else argument for argument in arguments]
    if arguments[0] in ("test", "validate", "predict") and arguments[1] == "lightning_logs/<run>":
        arguments[1] = str(run)
    if "--resume" in arguments:
        arguments[arguments.index("--resume") + 1] = str(run)
    plain = {"prefetch", "doctor", "compare", "explain", "export", "report", "audit", "split", "survey", "review"}
    plain |= {"sweep", "ensemble"}
    if arguments[0] in plain:
        # None is to download, to examine this machine or to find files here: that its options are known is enough.
        shown = bldml(arguments[0], "--help")
        own = [option for option in arguments if option.startswith("--") and "." not in option]
        assert shown.code == 0
        assert not [option for option in own if option not in shown.out]
        return
    if arguments[0] in ("fit", "test", "validate", "predict") and not {"--help", "--print_config"} & set(arguments):
        arguments = [*arguments, "--print_config"]
    completion = arguments[0].startswith("--print_completion")
    if completion:
        pytest.importorskip("shtab", reason="the extra bldml[completion] is not installed")
    outcome = bldml(*arguments)
    assert outcome.code == 0, outcome.err
    if completion:
        assert "--early_stopping.patience" in outcome.out
        assert len(outcome.out) < 2_000_000, "a shell reads it at the first Tab"


def test_readme_is_short() -> None:
    """Everything else is in docs/."""
    assert len(README.splitlines()) <= 150


def test_configuration_shown_is_the_one_shipped() -> None:
    shown = re.search(r"```yaml\n(.*?)```", DOCS[REPOSITORY / "docs/howto/train.md"], re.DOTALL)
    assert shown is not None
    shipped = (REPOSITORY / "configs" / "efficientnet.yaml").read_text()
    assert shown[1] == "".join(line for line in shipped.splitlines(keepends=True) if not line.startswith("#"))


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(LINES))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_linked_exist() -> None:
    for page, text in {REPOSITORY / "README.md": README, **DOCS}.items():
        for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", text):
            assert (page.parent / link).is_file() or "reference/" in link, f"{link} in {page.name}"
    for script in re.findall(r"\b(?:scripts/slurm|configs)/[a-z]+\.\w+", PAGES):
        assert (REPOSITORY / script).is_file(), script


def test_changelog_names_every_command() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    for name in (*COMMANDS, "doctor"):
        assert f"bldml {name}" in changelog
