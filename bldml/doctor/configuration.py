"""The options of a fit, parsed by the fit's own parser without running it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bldml.doctor.checks import Finding, fail, first_line, ok, skip
from bldml.errors import BldmlError

if TYPE_CHECKING:
    from bldml.training.backbones import Unit
    from bldml.training.data.datamodule import LeafDataModule
    from bldml.training.module import LeafClassifier

NAME = "configuration"
SETTINGS = "settings"


@dataclass(frozen=True)
class Settings:
    """Settings of a fit that the checks need, as plain values."""

    backbone: str
    image_size: int
    weights: str
    batch_size: int
    num_workers: int | str
    precision: str
    accelerator: str
    devices: int | str
    num_nodes: int
    root_dir: Path
    unfrozen: tuple[int, "Unit"]  # largest number of unfrozen stages or blocks
    run_name: str | None = None  # of a new run
    data: str = ""  # all settings of the photographs; two fits with equal ones read the same


@dataclass(frozen=True)
class Configuration:
    """The options of a fit, as far as they are valid; what could not be created is None."""

    settings: Settings | None = None
    files: tuple[Path, ...] = ()  # the configuration files given
    model: "LeafClassifier | None" = None  # with random weights
    datamodule: "LeafDataModule | None" = None  # before it reads the photographs
    findings: tuple[Finding, ...] = ()


def read_configuration(arguments: list[str], model_class: "type[LeafClassifier] | None" = None) -> Configuration:
    """Parse the options of a fit and create its model, data module and trainer; mistakes are among the findings.

    Args:
        arguments: Options of fit.
        model_class: The class of the classifier; None for LeafClassifier.
    """
    if not arguments:
        return Configuration(findings=(skip(NAME),))
    from bldml.app.options import config_files
    from bldml.training.process import Session

    files = tuple(config_files(arguments))
    try:
        with Session(), _quiet():
            return _read(arguments, files, model_class)
    # SystemExit: an option such as --print_config, which prints and exits while it is parsed.
    except (Exception, SystemExit) as error:
        return Configuration(files=files, findings=(_refused(NAME, error),))


def _read(arguments: list[str], files: tuple[Path, ...], model_class: "type[LeafClassifier] | None") -> Configuration:
    from bldml.app.lightning_cli import LeafCLI
    from bldml.run.folder import RunFolder
    from bldml.training.finetuning import check_depth
    from bldml.training.lightning_internals import parse_only
    from bldml.training.resume.signals import InterruptSignals

    @parse_only
    class FitOptions(LeafCLI):
        """A fit that stops after its command line was parsed."""

        def instantiate_classes(self) -> None:
            """Do nothing yet: an error in the trainer must not hide the parsed settings."""

        def hold(self, run: RunFolder) -> None:
            """Do nothing: a run that another process trains may be looked at."""

        def create(self) -> None:
            """Create what `fit` creates before it starts."""
            super().instantiate_classes()

    # Without its `with` block, InterruptSignals handles no signal.
    options = FitOptions(["fit", *arguments], InterruptSignals(), model_class)
    config = options.config["fit"]
    trusted = "; trusted (--trust_config): it can run any program with your rights" if options.trusted else ""
    findings = [ok(NAME, (", ".join(map(str, files)) or "options only, no file") + trusted)]
    try:
        options.create()
        check_depth(options.model, config.unfreezing)
        findings.append(ok(SETTINGS, f"{config.model.backbone}; model, data module and trainer can be created"))
    except Exception as error:
        findings.append(_refused(SETTINGS, error))
    model, datamodule = getattr(options, "model", None), getattr(options, "datamodule", None)
    return Configuration(_settings(config), files, model, datamodule, tuple(findings))


def _settings(config: Any) -> Settings:
    from bldml.training.backbones import image_size_of
    from bldml.training.finetuning import deepest

    trainer = config.trainer
    devices = trainer.devices
    return Settings(
        backbone=config.model.backbone,
        image_size=image_size_of(config.model.backbone, config.model.image_size),
        weights=str(config.model.weights),
        batch_size=config.data.batch_size,
        num_workers=config.data.num_workers,
        precision=str(trainer.precision),
        accelerator=str(trainer.accelerator),
        devices=len(devices) if isinstance(devices, list) else devices,
        num_nodes=trainer.num_nodes,
        root_dir=Path(trainer.default_root_dir or ".").expanduser(),
        unfrozen=deepest(config.unfreezing.stages, config.unfreezing.blocks),
        run_name=None if config.resume else config.run_name,
        data=repr(config.data),
    )


def _refused(name: str, error: BaseException) -> Finding:
    if isinstance(error, SystemExit):
        return fail(name, "an option that only prints was given", "remove --help and --print_config")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [first_line(error)]
    # A parser names the key on one line and explains the error on the next.
    while lines[0].endswith(":") and len(lines) > 1:
        lines[:2] = [f"{lines[0]} {lines[1]}"]
    # Mistakes of the user say what to do. The name, so that Lightning is not imported for it.
    kind = type(error).__name__
    shown = "" if isinstance(error, BldmlError) or kind == "MisconfigurationException" else f"{kind}: "
    remedy = "\n".join(lines[1:]) or "change the key or option named above; all options: python -m bldml fit --help=all"
    return fail(name, shown + lines[0], remedy)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages that a trainer logs about itself and the machine; the doctor has rows for them."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
