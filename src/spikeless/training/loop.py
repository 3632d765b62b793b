"""The training loop."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeless.config import find
from spikeless.data import PreparedData, Sampler, prepare, validation_batches, validation_bytes_per_token
from spikeless.diagnostics import is_before_step, needs_moments, needs_previous
from spikeless.errors import SpikelessWarning, UnhealthyRun, UserError
from spikeless.files import locked
from spikeless.loggers import Logger
from spikeless.loggers.jsonl import JSONLines
from spikeless.report import RunRecord, read_run, write_report
from spikeless.run import RunConfig
from spikeless.stats import global_norm
from spikeless.training.build import build_model, fill_vocabulary, refuse_cut_chats
from spikeless.training.checkpoints import Checkpoints
from spikeless.training.continuation import changes_on_resume, lower_rate_hint, warn_of_a_jump
from spikeless.training.environment import describe_environment, peak_flops, resolve_device
from spikeless.training.estimate import flops_per_token
from spikeless.training.idle_settings import say_idle_settings
from spikeless.training.interrupt import Interrupt
from spikeless.training.journal import Journal, LateRow, read_row
from spikeless.training.objective import Objective, choose_precision, evaluate
from spikeless.training.origin import begin_branch, parse_origin
from spikeless.training.run_folder import RunFolder, label_of, writing_to
from spikeless.training.start import load_start
from spikeless.training.state import TrainState
from spikeless.training.timer import StepTimer

__all__ = ["train"]


def train(
    run: RunConfig | None,
    folder: str | Path,
    *,
    resume: bool = False,
    branch_from: str | Path | None = None,
    loggers: Sequence[Logger] = (),
    report: bool = True,
    data: PreparedData | None = None,
) -> RunRecord:
    """Train a run in a folder and return its record.

    Interrupted by Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 it saves a checkpoint and returns. With `resume` it goes on from
    the newest whole checkpoint, bit-identical to a run that was never interrupted.

    Args:
        run: the whole run; None for the one that is stored, to resume it or to branch off as it is.
        folder: where configuration, metrics, checkpoints and report go; locked meanwhile.
        resume: go on with the run in `folder`, or begin if there is none; see `changes_on_resume`.
        branch_from: begin with the state of another run's checkpoint, `RUN@STEP`; `run` says what changes.
        loggers: besides those that the run names.
        report: write `report.html`; `spikeless report` can do it later.
        data: what `prepare` makes of the run's data spec, if it is at hand; a run that goes on reads its own.

    Raises:
        UserError: wrong configuration or data, a folder in use or of another run, a full disk.
        UnhealthyRun: the loss, a gradient or a parameter became non-finite; the last good checkpoint is kept.
    """
    path, own = Path(folder), RunFolder(Path(folder))
    origin = None if branch_from is None else parse_origin(branch_from)
    if run is None:
        stored = own if resume and own.exists else origin and origin.run
        if stored is None:
            raise UserError(f"{path} holds no run that could be resumed; describe one")
        run = stored.asked()
    run.check()
    say_idle_settings(run)
    with locked(path), writing_to(path):
        if resume and own.exists:
            data = None
            if origin:
                origin.refuse_other(own)
        else:
            own.claim(branch=origin is not None)
            resume, data = (True, begin_branch(origin, run, own)) if origin else (False, data)
        trainer = _Trainer(run, own, resume, data)
        with Interrupt() as interrupt:
            try:
                trainer.train(loggers, interrupt)
            except UnhealthyRun:
                if report:
                    trainer.report()
                raise
            return trainer.report() if report else read_run(path)


class _Trainer:
    """One run in one folder: everything is built and restored here, and then only stepped."""

    def __init__(self, run: RunConfig, folder: RunFolder, resume: bool, data: PreparedData | None) -> None:
        device = resolve_device(run.device)
        if data is None:
            tokenizer = folder.tokenizer_for(run) if resume else run.data.tokenizer
            data = prepare(run.data.spec, tokenizer, validation_fraction=run.data.validation_fraction)
        self.data = data
        asked, self.run = run, fill_vocabulary(run, data)
        run = self.run
        refuse_cut_chats(run, data)
        changes = changes_on_resume(folder, run, data.data_hash) if resume else []
        self.sampler = Sampler(data.train, run.data.sequence_length, run.seed)
        _validation(run, data)  # too short a corpus is said now
        torch.manual_seed(run.seed)
        model = build_model(run, device)
        self.state = TrainState(model, run.optim.build(model.named_parameters()), device)
        self.folder, self.checkpoints = folder, Checkpoints(folder.path)
        saved = self.checkpoints.newest() if resume else None
        self.last_step = saved.step if saved else -1
        if saved:
            self.state.restore(saved)
            self.checkpoints.discard_after(saved.step)
        for change in changes:
            if change.path == "steps":
                warn_of_a_jump(run, change.old, self.state.step)
        measured = folder.environment if saved and "precision" not in {each.path for each in changes} else {}
        environment = describe_environment(device) | self._choose_precision(measured)
        environment |= {"seed": run.seed, "data_hash": data.data_hash}
        records = folder.records(self.state.step, changes, environment) if resume else {}
        if run.init_from and not saved:
            records["init_from"] = load_start(model, run.init_from)
        beginning, end_of_text = data.tokenizer.reading.beginning, data.tokenizer.end_of_text
        documents = partial(run.data.boundaries.documents, end_of_text=end_of_text, beginning=beginning)
        self.objective = Objective(model, run.loss, device, environment["precision"], run.compile, documents)
        self.diagnostics = [find("diagnostics", name) for name in run.metrics.diagnostics]
        self.flops_per_token, self.peak = flops_per_token(model, run.data.sequence_length), peak_flops(device)
        folder.begin(run, asked, data, sum(p.numel() for p in model.parameters()), environment, records)
        self.tokens_before = folder.tokens(0)

    def train(self, loggers: Sequence[Logger], interrupt: Interrupt) -> None:
        """Step to the end, or to an interruption; the folder's status says how it ended, whatever happens."""
        state, folder = self.state, self.folder
        folder.set_status("running", state.step)
        try:
            with contextlib.closing(self._journal(loggers)) as journal:
                self._train(journal, interrupt)
        except UnhealthyRun as error:
            folder.set_status("unhealthy", state.step, str(error))
            steps = self.checkpoints.steps()
            kept = "none was saved yet"
            if steps:
                good = self.checkpoints.path(steps[-1])
                kept = f"the last good checkpoint is {good}; {lower_rate_hint(folder.path, steps[-1])}"
            raise UnhealthyRun(f"{folder.path} stopped at {error}; {kept}") from None
        except BaseException as error:
            with contextlib.suppress(UserError):  # a full disk, which is the error perhaps
                if isinstance(error, Exception):
                    folder.set_status("failed", state.step, f"{type(error).__name__}: {error}".partition("\n")[0])
                else:  # a second Ctrl-C
                    folder.set_status("interrupted", state.step, interrupt.signal_name or "")
            raise
        signal_name = (interrupt.signal_name or "") if state.step < self.run.steps else ""
        folder.set_status("interrupted" if signal_name else "finished", state.step, signal_name)

    def _journal(self, loggers: Sequence[Logger]) -> Journal:
        """A journal for the run's own loggers and some others."""
        path, last_step = self.folder.path, self.last_step
        own = [find("loggers", name)(path, last_step) for name in self.run.metrics.loggers]
        return Journal([JSONLines(path, last_step), *own, *loggers])

    def _train(self, journal: Journal, interrupt: Interrupt) -> None:
        run = self.run
        if self.last_step < 0:
            self._read_start(journal)
        first = self.state.step + 1
        for step in range(first, run.steps + 1):
            journal.write(self._step(step))
            if step == first:
                self._check_optimizer()
            stop = interrupt.signal_name  # read once: a signal may come between saving and leaving
            if stop or step == run.steps or _due(step, run.checkpoint.every):
                self._save(journal)
            if stop:
                return

    def report(self) -> RunRecord:
        """Write the run's report and return its record."""
        record = read_run(self.folder.path)
        title = f"{self.run.recipe}: {label_of(self.run)}"
        write_report([record], self.folder.path / "report.html", title=title)
        return record

    def _check_optimizer(self) -> None:
        """Say what shows once the optimizer has made a step: state that cannot be saved, readings that will be missing.

        Warns:
            SpikelessWarning: a diagnostic needs moments that this optimizer does not keep.
        """
        self.state.check_optimizer()
        asked = zip(self.run.metrics.diagnostics, self.diagnostics, strict=True) if self.run.metrics.every else ()
        without = [name for name, each in asked if needs_moments(each)]
        if without and not self.state.snapshot(1).moments:
            optimizer = type(self.state.optimizer).__name__
            message = f"no readings of {', '.join(without)}: {optimizer} does not keep Adam's exp_avg and exp_avg_sq"
            warnings.warn(message, SpikelessWarning, stacklevel=2)

    def _step(self, step: int) -> LateRow:
        """Do the 1-based `step`; its row of numbers, some not known yet."""
        run, state, optimizer = self.run, self.state, self.state.optimizer
        read = _due(step, run.metrics.every)
        early = self._readings(step, before=True) if read else {}
        timer = StepTimer(state.device)
        lr = run.optim.lr * run.schedule.factor(step - 1, run.steps)
        state.set_lr(lr, run.optim.lr)
        loss = torch.zeros((), device=state.device)
        for part in self._parts(step, run.data.micro_batches):
            part_loss = self.objective(*part) / run.data.micro_batches
            part_loss.backward()
            loss += part_loss.detach()
        gradients = [p.grad for p in state.parameters.values() if p.grad is not None]
        grad_norm = global_norm(gradients)
        for transform in run.gradients:
            transform.apply(gradients, grad_norm)
        if read and any(map(needs_previous, self.diagnostics)):
            state.keep_previous()
        optimizer.step()
        optimizer.zero_grad()
        state.step, state.val_loss = step, None
        tokens = run.data.batch_size * run.data.sequence_length
        seconds = timer.stop()
        row: dict[str, Any] = {"step": step, "loss": loss, "lr": lr, "grad_norm": grad_norm}
        row["tokens"] = self.tokens_before + step * tokens
        row["tokens_per_second"] = lambda: tokens / seconds()
        row["epoch"] = self.sampler.epoch(step, run.data.batch_size)
        if peak := self.peak:
            row["mfu"] = lambda: tokens / seconds() * self.flops_per_token / peak
        if read:
            row |= early | self._readings(step, before=False)
            state.forget_previous()
        if step == run.steps or _due(step, run.evaluation.every):
            row |= self._evaluate()
        return row

    def _parts(self, step: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batch of the 1-based `step` in equal parts."""
        size = self.run.data.batch_size // count
        for index in range(count):
            yield self.sampler.batch(step - 1, self.run.data.batch_size, index * size, size)

    def _readings(self, step: int, before: bool) -> dict[str, Tensor]:
        """What the diagnostics say, of those to be read before the optimizer's step or of those after it."""
        count = math.gcd(self.run.data.batch_size, max(4, self.run.data.micro_batches))
        batches = list(self._parts(step, count))
        parts = tuple(lambda part=part: self.objective(*part) for part in batches)
        snapshot = self.state.snapshot(self.run.data.sequence_length, parts, lambda: batches[0][0])
        due = [each for each in self.diagnostics if is_before_step(each) is before]
        return {key: value for diagnostic in due for key, value in diagnostic(snapshot).items()}

    def _evaluate(self) -> dict[str, float]:
        """The validation loss [nats/token], and the same in bits per byte where the text is known."""
        loss = self.state.val_loss = evaluate(self.objective, _validation(self.run, self.data))
        size = self._bytes_per_token
        return {"val_loss": loss} | ({"val_bits_per_byte": loss / math.log(2) / size} if size else {})

    @cached_property
    def _bytes_per_token(self) -> float | None:
        if any(each.validation.kind == "token ids" for each in self.data.sources):
            return None
        run, data = self.run, self.data
        length, most = run.data.sequence_length, run.evaluation.tokens
        return validation_bytes_per_token(data.validation, data.tokenizer, length, most)

    def _read_start(self, journal: Journal) -> None:
        """Row 0: the untrained model; later readings refer to it."""
        readings = self.state.at_start = read_row(self._readings(1, before=False)) if self.run.metrics.every else {}
        journal.write({"step": 0, "tokens": 0, **self._evaluate(), **readings})

    def _save(self, journal: Journal) -> None:
        """Publish a checkpoint, unless something in it is not finite."""
        journal.flush()
        if not self.state.is_finite():
            raise UnhealthyRun(f"step {self.state.step}: a parameter is not finite")
        self.checkpoints.save(self.state.checkpoint())
        self.checkpoints.prune(self.run.checkpoint.keep_last, self.run.checkpoint.keep_best)

    def _choose_precision(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """The precision to use; a run that goes on keeps the one that was measured when it began."""
        if "precision" in measured:
            return {key: measured[key] for key in ("precision", "precision_seconds")}
        part = next(self._parts(1, self.run.data.micro_batches))
        state = self.state
        precision, seconds = choose_precision(self.run.precision, state.model, self.run.loss, state.device, part)
        return {"precision": precision, "precision_seconds": seconds}


def _validation(run: RunConfig, data: PreparedData) -> Iterator[tuple[Tensor, Tensor]]:
    size = run.data.batch_size // run.data.micro_batches
    return validation_batches(data.validation, run.data.sequence_length, size, run.evaluation.tokens)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
