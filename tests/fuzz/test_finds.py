"""What the fuzzer has found, each as a test of its own."""

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from bldml.app.photographs import read_phashes
from bldml.audit.keypoints import KeypointStore
from bldml.io.documents import load_json, load_yaml
from bldml.run.folder import RunFolder
from bldml.survey.progress import HEAD, SurveyProgress
from bldml.training.checkpoint import KEY, NOVELTY, read_checkpoint
from bldml.training.networks.distribution import plain_novelty
from tests.support import Bldml, mistake
from tests.training.test_checkpoint import FAMILIAR, HEADER


@pytest.mark.parametrize("text", ["[" * 500_000, "- " * 500_000, "[" * 5000 + "]" * 5000, "a: {" * 100 + "}" * 100])
def test_brackets_do_not_end_the_process(text: str) -> None:
    """libyaml's parser is recursive where it makes nodes: 50,000 brackets were a segmentation fault."""
    with pytest.raises(yaml.YAMLError, match=r"nested too deeply|indentation|not allowed"):
        load_yaml(text)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
        load_json(text)


def test_a_nul_in_a_name(bldml: Bldml) -> None:
    assert bldml("report", "a\0b").mistake == "argument-too-much"
    Path("c.yaml").write_text('data: {root: "a\\0b"}\n')
    assert bldml("fit", "--config=c.yaml", "--trainer.accelerator=cpu").mistake == "text-with-nul"


def test_a_weight_that_is_no_matrix(tmp_path: Path) -> None:
    content = {
        "state_dict": {"network.fc.weight": torch.ones(())},
        KEY: asdict(HEADER),
        NOVELTY: plain_novelty(FAMILIAR),
    }
    torch.save(content, tmp_path / "best.ckpt")
    with mistake("checkpoint-header-wrong"):
        read_checkpoint(tmp_path / "best.ckpt")


def test_stored_hashes_that_are_no_arrays(tmp_path: Path) -> None:
    run, content = RunFolder(tmp_path), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("names.npy", b"no array")
        archive.writestr("phashes.npy", b"no array")
    run.phashes.write_bytes(content.getvalue())
    assert read_phashes(run) is None


def test_a_bit_of_the_digest_of_stored_keypoints(tmp_path: Path) -> None:
    """They would have been taken for those of another photograph."""
    store = KeypointStore(tmp_path)
    store.add("ab" * 32, bytes(100))
    store.add("cd" * 32, bytes(100))
    store.close()
    content = bytearray(store.path.read_bytes())
    content[content.index(b"abab") + 5] ^= 1
    store.path.write_bytes(content)
    again = KeypointStore(tmp_path)
    assert not again._found
    again.close()


@pytest.mark.parametrize(
    "change",
    [
        {"stamp": [[], 1]},
        {"stamp": ["70", 1]},
        {"stamp": [1e999, 1]},
        {"band": "perhaps"},
        {"band": []},
        {"familiar": "yes"},
    ],
)
def test_a_line_of_a_survey_with_values_of_other_kinds(change: dict[str, object], tmp_path: Path) -> None:
    """A stamp that was a list ended in a traceback; the photograph is judged again."""
    settings = {"checkpoint": "ab"}
    line = {"path": "a.png", "stamp": [70, 1], "probability": 0.75, "band": "positive", "familiar": True}
    lines = [{HEAD: settings}, line, line | {"path": "b.png"} | change]
    (tmp_path / "progress.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    assert SurveyProgress(tmp_path, settings).read().keys() == {"a.png"}
