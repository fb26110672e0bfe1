"""fit, validate, test and predict as a LightningCLI."""

import os
import re
from contextlib import ExitStack
from pathlib import Path
from traceback import extract_tb
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from bldml.app.allowed import RISK, allowed_paths, check_addresses, check_allowed, refusal
from bldml.app.evaluation import check_division, evaluate_after_fit, evaluate_checkpoint, take_from_checkpoint
from bldml.app.fit import Start
from bldml.app.messages import report_interrupted, say_warning
from bldml.app.options import (
    Parser,
    add_arguments,
    check_nulls,
    checked_seed,
    checked_site,
    set_up_parsing,
    settle_logistic,
    stated_keys,
    unused_options,
    with_present_options,
    without,
)
from bldml.app.resume import RUN_VARIABLE, ResumePlan, make_plan, with_config_of_run
from bldml.app.screen.bar import RunLog, messages_above_bars
from bldml.app.screen.epochs import say_ending
from bldml.app.screen.tensorboard import disk_errors_of_threads
from bldml.app.trainer import TRAINER_DEFAULTS, as_list, check_monitors, environment_of, hush, trainer_settings
from bldml.app.typed import check_files, class_called_null, with_file, with_text_aliases
from bldml.dataset.files import shell_word
from bldml.errors import BldmlError, ConfigError, MachineError
from bldml.io.grammar import pattern, written_out
from bldml.io.safe_points import count_kept
from bldml.io.screen import complain
from bldml.run.folder import RunFolder
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.finetuning import TrainingConditions
from bldml.training.lightning_internals import actions_of, disarm, forget_hyper_parameters, is_started_by_fork
from bldml.training.module import LeafClassifier
from bldml.training.process import keep_freed_memory
from bldml.training.resume.holding import await_holder, hold_run
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import Interrupted, InterruptSignals, is_first_process
from bldml.training.resume.slurm import RequeueEnvironment, check_ranks, leave
from bldml.training.resume.state import restoring
from bldml.training.resume.stopping import check_progress
from bldml.usage import VERB_HELP

STRATEGIES = ("auto", "ddp")


@forget_hyper_parameters
class LeafCLI(LightningCLI):
    """The commands fit, validate, test and predict.

    Args:
        args: The command line without the program's name; `--trust_config` lifts the limits of `allowed`.
        signals: Flags of the signals that interrupt a fit.
        model_class: The class of the classifier; None for LeafClassifier.
    """

    model: LeafClassifier
    datamodule: LeafDataModule

    def __init__(
        self, args: list[str], signals: InterruptSignals, model_class: type[LeafClassifier] | None = None
    ) -> None:
        self.signals = signals
        self.is_child = RUN_VARIABLE in os.environ
        self.job = SlurmJob.current()
        self.plan: ResumePlan | None = None
        self.held = ExitStack()
        self.environment: RequeueEnvironment | None = None
        self.kept_before = count_kept()
        self.checkpoint: Checkpoint | None = None
        self.external = False
        hush()
        self.trusted = "--trust_config" in args
        if self.trusted and not self.is_child:
            say_warning(f"--trust_config: this configuration may name classes that bldml does not know. {RISK}")
        set_up_parsing(None if self.trusted else allowed_paths())
        args = [argument for argument in args if argument != "--trust_config"]
        args = with_config_of_run(with_text_aliases(with_present_options(written_out(args))))
        check_files(args)
        self.stated = stated_keys(args)
        self.parsers: dict[str, LightningArgumentParser] = {}
        self.verb = args[0] if args else ""
        if self.verb not in ("", "fit") and not self.is_child and (unused := unused_options(args)):
            say_warning(f"{self.verb} does not use {', '.join(unused)}.")
        with self.held:
            self.held.enter_context(messages_above_bars(clock=self.job is not None and not self.job.interactive))
            self.held.enter_context(disk_errors_of_threads())
            super().__init__(
                model_class or LeafClassifier,
                LeafDataModule,
                save_config_callback=None,
                # After the callbacks of unfreezing and plateau, whose decisions it logs.
                trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [TrainingConditions()]},
                seed_everything_default=42,
                parser_kwargs={
                    "prog": "bldml",
                    **{verb: {"description": VERB_HELP[verb][0]} for verb in self.subcommands()},
                },
                parser_class=Parser,
                args=args,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning, which asks an object
        """Return the command that was typed, or all, with the arguments of the Trainer's methods that are not options.

        Making a parser is slow, so only one is made. Without a command all are needed, for tab completion.
        """
        hidden = {"model", "datamodule", "weights_only", "ckpt_path", "train_dataloaders", "val_dataloaders"}
        hidden |= {"dataloaders", "verbose", "return_predictions"}
        return {verb: hidden for verb in VERB_HELP if verb == self.verb or self.verb not in VERB_HELP}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our options; Lightning calls this once per command, in the order of `subcommands`."""
        verb = list(self.subcommands())[len(self.parsers)]
        self.parsers[verb] = parser
        add_arguments(parser, verb)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line; for an evaluation a second time, with the checkpoint's settings as defaults."""
        assert isinstance(args, list)
        if self.verb.startswith("--print_completion"):
            for own in self.parsers.values():
                _offer_strategies(own)
        self.config = self._parsed(parser, args)
        verb = self.config.subcommand
        if verb == "fit":
            return
        typed = self.config[verb]
        if not typed.ckpt_path:
            message = f"A checkpoint is required, or a run folder for its best one: {pattern(verb)}"
            raise ConfigError(message, "checkpoint-not-given")
        if verb == "predict" and (typed.data.root is None or typed.data.manifest is not None):
            message = f"predict needs photographs and no manifest: {pattern(verb)}"
            raise ConfigError(message, "data-root-not-given")
        self.checkpoint = read_checkpoint(Path(typed.ckpt_path))
        header = self.checkpoint.header
        defaults, self.external = take_from_checkpoint(typed, header)
        self.parsers[verb].set_defaults(defaults)
        self.config = self._parsed(parser, args)
        config = self.config[verb]
        config.site = checked_site(config.site, external=self.external)
        if not self.external:
            check_division(config.data, header)
        # Only the checkpoint defines the classifier, whatever a configuration file says.
        config.model.backbone, config.model.weights = header.backbone, "none"
        config.data.positive_class = header.positive_class
        config.model.image_size = config.data.image_size = header.image_size
        for key in ("root", "manifest"):
            config.data[key] = defaults[f"data.{key}"]

    def _parsed(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        try:
            config = self._checked(parser, args)
        except ConfigError as error:
            raise with_file(error, args) from error
        except ImportError as error:  # jsonargparse lets some of its own refusals out
            raise ConfigError(
                refusal(str(error), trusted=self.trusted) or str(error), "import-refused", reason=str(error)
            ) from error
        except (OverflowError, ValueError) as error:  # and the conversion of a number of hundreds of digits
            raise ConfigError(f"An option cannot be read: {error}", "option-unreadable", reason=str(error)) from error
        verb = config.subcommand
        unused = settle_logistic(config.fit, self.stated, self.parsers[verb]) if verb == "fit" else []
        if unused and not self.is_child:
            say_warning(f"model.head logistic does not use {', '.join(unused)}.")
        seed = config[verb].seed_everything
        if verb == "fit" and not config.fit.trainer.fast_dev_run:
            self.environment = environment_of(config.fit.trainer.plugins)
            self.plan = make_plan(config.fit, self.job, self.parsers["fit"], self.hold)
            if seed is True and self.plan is not None and self.plan.seed is not None:  # drawn when the run was started
                seed = self.plan.seed
        seed = config[verb].seed_everything = checked_seed(seed)
        config[verb].model.seed = config[verb].data.seed = int(seed)
        return config

    def _checked(self, parser: LightningArgumentParser, args: list[str]) -> Namespace:
        """Parse, and check what the parser lets through."""
        config = parser.parse_args(args)
        settings = config[config.subcommand]
        (check_addresses if self.trusted else check_allowed)(settings)
        check_nulls(self.parsers[config.subcommand], settings)
        if settings.data.positive_class is None:
            settings.data.positive_class = class_called_null(args)
        return config

    def hold(self, run: RunFolder) -> None:
        """Lock a run until this command ends; the first process does so for all.

        Raises:
            RunError: Another process trains in the run.
            SystemExit: The job was interrupted or requeued while it waited for that process.
        """
        if self.is_child:
            return  # its parent holds the run
        try:
            if not is_first_process():
                await_holder(run, self.job, self.signals)
            elif not self.held.enter_context(hold_run(run, self.job, self.signals)).is_real:
                say_warning("File locking is not available here; make sure only one job writes to this run.")
        except Interrupted as interrupted:
            leave(interrupted, self.job, self.signals, self.environment, _how_to_resume(run))

    def instantiate_classes(self) -> None:
        """Instantiate as LightningCLI does; a value that a class refuses becomes a ConfigError."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:
            # For an optional setting, jsonargparse lists the relevant error first and irrelevant ones after it.
            first = re.search(r"^Errors:\n  - (.*)", str(error), re.MULTILINE)
            reason = first[1] if first else str(error)
            raise ConfigError(f"These settings are not valid: {reason}", "settings-refused", reason=reason) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer without loggers and checkpoints; a fit adds them when its run folder exists."""
        configured = self.config_init[self.subcommand]["trainer"]
        settings = trainer_settings(configured, str(self.subcommand))
        in_step = any(isinstance(plugin, RequeueEnvironment) for plugin in settings["plugins"])
        # Its settings hold in a job without srun too.
        plugins = [*settings["plugins"], *as_list(configured["plugins"])]
        self.environment = next((plugin for plugin in plugins if isinstance(plugin, RequeueEnvironment)), None)
        try:
            trainer = disarm(super().instantiate_trainer(**settings, **kwargs))
        except (BldmlError, OSError, MemoryError):
            raise
        except Exception as error:  # Lightning tries some settings out, which raises errors of many kinds
            raise ConfigError(
                f"The trainer cannot be set up with these settings: {error}", "trainer-refused", reason=str(error)
            ) from error
        if in_step:
            check_ranks(trainer.num_devices, trainer.num_nodes)
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        # Other strategies shard weights over processes, or start processes that signals do not reach.
        if is_started_by_fork(trainer) or type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            message = f"trainer.strategy must be {' or '.join(STRATEGIES)}."
            raise ConfigError(message, "strategy-unsupported", expected=list(STRATEGIES))
        return trainer

    def fit(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Train, then evaluate the best checkpoint."""
        config, log = self.config["fit"], self.held.enter_context(RunLog())
        self.model.criterion = self.config_init["fit"]["operating_point"]
        closed = type(self.model) is LeafClassifier and not self.trusted
        check_monitors(self.trainer.callbacks, closed=closed)  # type: ignore[attr-defined]  # set by a connector
        start = Start(
            self.trainer, self.model, self.datamodule, config, self.signals, self.job, self.plan, self.hold, self.stated
        )
        try:
            start.run(self.parsers["fit"].dump(without(config, "resume"), skip_unset=False))
            if start.folder is not None and self.trainer.is_global_zero:
                log.write_to(start.folder.log)
            # Lightning treats a path that begins with http as an address.
            progress = self.plan.progress if self.plan else None
            path = progress.path.absolute() if progress else None
            with restoring(path, self.trainer):
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=path, weights_only=True)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                # One process evaluates; its metrics must not wait for the others.
                torch.distributed.barrier()
                torch.distributed.destroy_process_group()
            self.signals.check()
            if start.folder is not None and self.trainer.is_global_zero:
                say_ending(self.trainer, start.folder)
                splits = ("train", "val", "test") if config.test_after_fit else ("train", "val")
                evaluate_after_fit(
                    self.trainer, self.model, self.datamodule, start.folder, splits, self.signals,
                    start.stretch, report=config.report,
                )  # fmt: skip
        except Interrupted as interrupted:
            self._leave(interrupted, start)
        except ValueError as error:
            if "lightning" not in Path(extract_tb(error.__traceback__)[-1].filename).parts:
                raise
            # Lightning sees only with the first batches that settings do not fit their number.
            raise MisconfigurationException(str(error)) from error
        except (MachineError, OSError, MemoryError, RuntimeError) as error:
            if start.folder is not None:  # nothing is wrong with the run
                error.add_note(_how_to_resume(start.folder))
            raise

    def _leave(self, interrupted: Interrupted, start: Start) -> NoReturn:
        run = start.folder or (self.plan.run if self.plan else None)
        if self.is_child:
            # Lightning would kill the first process at once if a process that it started ended with an error.
            raise SystemExit(0)
        if self.trainer.is_global_zero:
            report_interrupted(run)
            start.stretch.end(interrupted)
            if self.environment is None or self.environment.auto_requeue:
                start.stretch.check(interrupted)
        how = _how_to_resume(run) if run else "Start the command again."
        leave(interrupted, self.job, self.signals, self.environment, how)

    def validate(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Evaluate on the validation split."""
        self._evaluate("val")

    def test(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Evaluate on the test split or another labelled folder."""
        self._evaluate("test")

    def predict(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Classify photographs without labels."""
        self._evaluate("predict")

    def _evaluate(self, split: str) -> None:
        assert self.checkpoint is not None
        config = self.config[self.subcommand]
        try:
            evaluate_checkpoint(
                self.trainer, self.model, self.datamodule, self.checkpoint, split,
                external=self.external, name=config.name, site=config.site, output=config.output, report=config.report,
                signals=self.signals,
            )  # fmt: skip
        except Interrupted as interrupted:
            again = "To resume, run the same command again."
            if self.environment is None or self.environment.auto_requeue:
                check_progress(self.job, interrupted, count_kept() - self.kept_before)
            complain(f"\nInterrupted; what is done is kept. {again}\n")
            leave(interrupted, self.job, self.signals, self.environment, again)
        except (MachineError, OSError, MemoryError, RuntimeError) as error:
            error.add_note("Then run the same command again.")
            raise


def _offer_strategies(parser: ArgumentParser) -> None:
    """Let tab completion offer the strategies that a fit takes.

    For the settings of all others jsonargparse would add four thousand options to each command: 70 MB of a script that
    a shell reads at the first Tab.
    """
    for action in actions_of(parser):
        if action.dest == "trainer.strategy":
            action.choices = STRATEGIES


def _how_to_resume(run: RunFolder) -> str:
    return f"Resume: python -m bldml fit --resume {shell_word(run.path)}"
