"""Weights that are laid on a network or refused, and what is said where they cannot be had."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bldml.training.backbones import BACKBONES, BackboneName, build
from bldml.training.download import digits, matches
from bldml.training.weights import load_pretrained, weights_file, weights_url
from tests.support import Hostile, mistake

NAMES = get_args(BackboneName)
WITH_IMAGENET = [name for name in NAMES if BACKBONES[name].weights]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torchvision cache; whoever tries to download meets a closed port of this machine."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    proxy_is(monkeypatch, 9)
    return tmp_path / "cache" / "hub" / "checkpoints"


def proxy_is(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def torchvisions(name: BackboneName) -> nn.Module:
    """Torchvision's own network as its ImageNet weights fit it, filled with random values, buffers too."""
    row = BACKBONES[name]
    auxiliary = {"aux_logits": True, "transform_input": True} if name == "inception_v3" else {}
    network: nn.Module = torchvision.models.get_model(row.model, weights=None, **{**row.options, **auxiliary})
    generator = torch.Generator().manual_seed(7)
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif key.endswith("running_mean"):
            value.normal_(generator=generator)
        elif key.endswith("num_batches_tracked"):
            value.fill_(3)
    return network.eval()


def state_of(name: BackboneName) -> dict[str, Tensor]:
    return torchvisions(name).state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_file_is_laid_on_all_but_the_head(name: BackboneName, tmp_path: Path) -> None:
    state = state_of(name)
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    network, head = build(name), f"{BACKBONES[name].head}."
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert state[f"{head}weight"].shape[0] == 1000
    load_pretrained(network, name, str(file))
    for key, value in network.state_dict().items():
        expected = before[key] if key.startswith(head) else state[key]
        assert torch.equal(value, expected), key


def test_imagenet_comes_from_torchvisions_cache(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name: BackboneName = "mobilenet_v3_large"
    state = state_of(name)
    torch.save(state, tmp_path / "weights.pth")
    with (tmp_path / "weights.pth").open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    url = f"https://download.pytorch.org/models/{name}-{digest[:8]}.pth"
    monkeypatch.setattr("bldml.training.weights.weights_url", lambda _: url)
    hub.mkdir(parents=True)
    (tmp_path / "weights.pth").rename(hub / f"{name}-{digest[:8]}.pth")
    network, head = build(name), f"{BACKBONES[name].head}."
    load_pretrained(network, name, "imagenet")
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items() if not k.startswith(head))


def test_inception_is_torchvisions_up_to_the_head(tmp_path: Path) -> None:
    reference = torchvisions("inception_v3")
    torch.save(reference.state_dict(), tmp_path / "inception.pth")
    network = build("inception_v3").eval()
    load_pretrained(network, "inception_v3", str(tmp_path / "inception.pth"))
    reference.set_submodule("fc", network.get_submodule("fc"))
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        ours, theirs = network(images), reference(images)
        assert torch.equal(ours, theirs)
        reference.transform_input = False  # type: ignore[assignment]
        assert not torch.allclose(ours, reference(images))


def test_none_leaves_the_network_alone() -> None:
    network = build("mobilenet_v2_x0_35")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_pretrained(network, "mobilenet_v2_x0_35", "none")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_small_weights_without_a_classifier(small_weights: Path) -> None:
    state = torch.load(small_weights, weights_only=True)
    network = build("mobilenet_v2_x0_35")
    load_pretrained(network, "mobilenet_v2_x0_35", str(small_weights))
    now = network.state_dict()
    assert now.keys() - state.keys() <= {"classifier.1.weight", "classifier.1.bias"} | {
        key for key in now if key.endswith("num_batches_tracked")
    }
    assert all(torch.equal(now[key], value) for key, value in state.items())
    assert len(state) > 200


def test_counters_of_old_files_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in state_of("mobilenet_v2_x0_35").items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    network = build("mobilenet_v2_x0_35")
    load_pretrained(network, "mobilenet_v2_x0_35", str(tmp_path / "old.pth"))
    assert torch.equal(network.state_dict()["features.18.0.weight"], state["features.18.0.weight"])


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name != key}


# What is done to a state dict, and its tensors that are then named.
MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one missing": (lambda state: without(state, "features.3.conv.0.0.weight"), "features.3.conv.0.0.weight"),
    "one too many": (lambda state: state | {"features.99.weight": torch.ones(1)}, "features.99.weight"),
    "one shape": (lambda state: state | {"features.0.0.weight": torch.ones(2, 2)}, "features.0.0.weight"),
    "prefixed": (lambda state: {f"module.{k}": v for k, v in state.items()}, "all"),
    "other architecture": (lambda _: state_of("mobilenet_v3_large"), "all"),
    "empty": (lambda _: {}, "all"),
    "no tensor": (lambda _: torch.zeros(()), ""),
    "nested": (lambda state: {"state_dict": state}, ""),
    "numbered": (lambda state: dict(enumerate(state.values())), ""),
}


@pytest.mark.parametrize("case", MISFITS)
def test_file_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    spoil, named = MISFITS[case]
    file = tmp_path / "weights.pth"
    torch.save(spoil(state_of("mobilenet_v2_x0_35")), file)
    network = build("mobilenet_v2_x0_35")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with mistake("weights-do-not-fit" if named else "weights-no-state-dict") as caught:
        load_pretrained(network, "mobilenet_v2_x0_35", str(file))
    assert str(caught.value.fields["path"]) == str(file)
    found = caught.value.fields.get("found", [""])
    assert len(found) > 50 if named == "all" else found == [named]
    # Nothing of it was laid on.
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("case", ["cut", "text", "nothing", "pickle", "zip in zip"])
def test_damaged_or_hostile_file_is_refused(case: str, tmp_path: Path) -> None:
    file, trace = tmp_path / "weights.pth", tmp_path / "was_here"
    torch.save(state_of("mobilenet_v2_x0_35"), file)
    if case == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif case == "text":
        file.write_text("<html>404</html>")
    elif case == "nothing":
        file.write_bytes(b"")
    else:
        torch.save({"features": Hostile(trace)}, file, _use_new_zipfile_serialization=case != "pickle")
    with mistake("weights-not-loadable", path=file):
        load_pretrained(build("mobilenet_v2_x0_35"), "mobilenet_v2_x0_35", str(file))
    assert not trace.exists()


@pytest.mark.parametrize("name", WITH_IMAGENET)
def test_names_of_torchvision_carry_a_digest(name: BackboneName, hub: Path) -> None:
    file = weights_file(name)
    assert file is not None
    assert file.parent == hub
    assert file.name == Path(str(weights_url(name))).name
    assert re.fullmatch("[0-9a-f]{8}", digits(file.name))


def test_home_that_is_to_be(hub: Path, tmp_path: Path) -> None:
    """Torch itself finds the file there once TORCH_HOME is set."""
    file = weights_file("resnet50", tmp_path / "cache")
    assert file == weights_file("resnet50")
    assert file == Path(torch.hub.get_dir()) / "checkpoints" / "resnet50-11ad3fa6.pth"


@pytest.mark.parametrize(("name", "good"), [("net-{}.pth", True), ("net-0000000f.pth", False), ("net.pth", True)])
def test_file_is_compared_with_its_name(name: str, good: bool, tmp_path: Path) -> None:
    file = tmp_path / name.format(hashlib.sha256(b"content").hexdigest()[:10])
    file.write_bytes(b"content")
    assert matches(file) is good


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_file_in_the_cache_is_named(whole: bool, hub: Path) -> None:
    """Also one that torch could load."""
    file = weights_file("mobilenet_v3_large")
    assert file is not None
    hub.mkdir(parents=True)
    torch.save(state_of("mobilenet_v3_large"), file)
    if not whole:
        file.write_bytes(file.read_bytes()[:1000])
    with mistake("weights-damaged", path=file, expected="5c1a4163"):
        load_pretrained(build("mobilenet_v3_large"), "mobilenet_v3_large", "imagenet")
    assert file.exists()


@pytest.mark.parametrize("weights", ["missing.pth", "imagnet", ""])
def test_missing_file(weights: str) -> None:
    with mistake("weights-missing", path=Path(weights)):
        load_pretrained(build("mobilenet_v2_x0_35"), "mobilenet_v2_x0_35", weights)


def test_imagenet_weights_that_do_not_exist() -> None:
    assert weights_file("mobilenet_v2_x0_35") is None
    with mistake("weights-not-published", found="mobilenet_v2_x0_35"):
        load_pretrained(build("mobilenet_v2_x0_35"), "mobilenet_v2_x0_35", "imagenet")


@contextmanager
def not_at_hand(hub: Path, reason: str) -> Iterator[None]:
    """Expect that the file, its address and what to do are named, and that no part of a download is left."""
    file = weights_file("mobilenet_v3_large")
    assert file is not None
    with mistake("weights-not-at-hand", path=hub / file.name) as caught:
        yield
    assert reason in caught.value.fields["reason"]
    assert f"https://download.pytorch.org/models/{file.name}" in caught.value.fields["reason"]
    assert "python -m bldml prefetch --backbone mobilenet_v3_large\n" in str(caught.value)
    assert not hub.exists()


def test_without_a_network(hub: Path) -> None:
    with not_at_hand(hub, "refused"):
        load_pretrained(build("mobilenet_v3_large"), "mobilenet_v3_large", "imagenet")


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A proxy on this machine that gives one fixed answer."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    asked: list[bytes] = []

    def start(answer: bytes) -> None:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[0].start()
        proxy_is(monkeypatch, server.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
    server.close()
    assert asked[0].startswith(b"CONNECT download.pytorch.org:443")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"not HTTP at all\r\n\r\n", b""])
def test_proxy_that_does_not_let_through(answer: bytes, hub: Path, answering: Callable[[bytes], None]) -> None:
    answering(answer)
    with not_at_hand(hub, "cannot be reached"):
        load_pretrained(build("mobilenet_v3_large"), "mobilenet_v3_large", "imagenet")


def test_name_server_that_never_answers(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every packet is dropped: looking up a name has no time limit of its own."""
    release = threading.Event()
    before = threading.active_count()

    def look_up(*_: object) -> list[object]:
        release.wait(60)
        raise socket.gaierror("released")

    monkeypatch.setattr("bldml.training.download.ANSWER_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with not_at_hand(hub, "no answer within 0.1 seconds"):
            load_pretrained(build("mobilenet_v3_large"), "mobilenet_v3_large", "imagenet")
        assert not release.is_set()
        assert threading.active_count() == before + 1  # given up, not waited for
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name.endswith("(ask)"):
                thread.join(60)
