"""An sbatch file is read as sbatch reads it."""

import pytest

from bldml.doctor.submission.script import full_name, parse_script


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--time=60", [("time", "60")]),
        ("--time 60", [("time", "60")]),
        ("-t 60", [("time", "60")]),
        ("-t60", [("time", "60")]),
        # sbatch takes the equals sign behind a short option for a part of the value, and so does the doctor.
        ("-t=60", [("time", "=60")]),
        ("-N1 -p gpu-a100 --requeue", [("nodes", "1"), ("partition", "gpu-a100"), ("requeue", "")]),
        ("--cpus-per-t=8", [("cpus-per-task", "8")]),
        ("--comment='two words' --exclusive=user", [("comment", "two words"), ("exclusive", "user")]),
        ("--exclusive --time=5", [("exclusive", ""), ("time", "5")]),
        ("--job-name=a#b   # don't ask", [("job-name", "a#b")]),
        ('--comment="no # comment"', [("comment", "no # comment")]),
        ("# --time=60", []),
        ("--memory=32G", [("memory", "32G")]),
    ],
)
def test_options_of_a_line(line: str, options: list[tuple[str, str]]) -> None:
    script = parse_script(f"#!/bin/bash\n#SBATCH {line}\n")
    assert [(option.name, option.value) for option in script.options] == options
    assert not script.problems


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--comment='open", "No closing quotation"),
        ("gres=gpu:1", "'gres=gpu:1' is not an option"),
        ("--partition", "--partition needs a value"),
    ],
)
def test_line_that_cannot_be_read(line: str, problem: str) -> None:
    ((source, found),) = parse_script(f"#!/bin/bash\n#SBATCH {line}\n").problems
    assert source == "line 2"
    assert problem in found


def test_options_end_at_the_first_command_and_the_last_of_a_name_counts() -> None:
    text = "#!/bin/bash\n#SBATCH --time=1\n\n# a remark\n#SBATCH --time=2\n ## SBATCH\nset -e\n#SBATCH --time=3\n"
    script = parse_script(text)
    assert script.value("time") == "2"
    assert script.late == (8,)
    assert script.value("account", "none") == "none"


def test_commands_are_joined_over_backslashes_and_keep_their_line() -> None:
    text = (
        "#!/bin/bash\n\nsrun python -m bldml fit \\\n  --data.root x \\\n  --run_name y  # why\n  # remark\necho '#'\n"
    )
    commands = [(command.line, " ".join(command.text.split())) for command in parse_script(text).commands]
    assert commands == [(3, "srun python -m bldml fit --data.root x --run_name y"), (7, "echo '#'")]


def test_space_behind_a_backslash_ends_the_command() -> None:
    commands = parse_script("#!/bin/bash\nsrun a \\ \n  --b\n").commands
    assert [command.text for command in commands][-1] == "--b"


@pytest.mark.parametrize("name", ["mem", "time", "gpus"])
def test_exact_name_wins_over_longer_ones(name: str) -> None:
    assert full_name(name) == name
