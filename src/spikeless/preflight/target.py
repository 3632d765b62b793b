"""What is audited: a recipe, a run, a Hugging Face folder or configuration, a factory of the user's own."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from spikeless.config import find, named_modules, names_in
from spikeless.data import Tokenizer, load_tokenizer, parse_tokenizer
from spikeless.data.tokenizers import FILES, has_tokenizer
from spikeless.errors import UserError, nearest
from spikeless.files import read_json
from spikeless.hub import hub_answers
from spikeless.init import InitConfig, standard_deviations
from spikeless.init.gpt2 import GPT2Init
from spikeless.init.normal import NormalInit
from spikeless.nn.transformer import Transformer
from spikeless.optim.adamw import AdamW
from spikeless.preflight.declared_init import InitJournal
from spikeless.preflight.measurements import DeclaredInit
from spikeless.pretrained.foreign import foreign_from_config, load_foreign
from spikeless.pretrained.read import read_config, read_pretrained
from spikeless.recipes import adapt, compose
from spikeless.roles import Role, role_of
from spikeless.run import RunConfig
from spikeless.training.build import build_model
from spikeless.training.trained import load_trained, read_description
from spikeless.weights import open_weights
from spikeless.weights.folder import OTHERS, PICKLES, SUFFIX, WAY_OUT
from spikeless.weights.hub import is_hub_name

__all__ = ["Target", "known_context_length", "load_target", "target_of_run"]

State = Literal["initial", "trained"]

TARGETS = "a recipe, a run folder or checkpoint, a Hugging Face folder, its config.json, or MODULE:FACTORY"
CONTEXT_LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len", "block_size", "context_length", "n_ctx")


@dataclass(kw_only=True)
class Target:
    """A model and what is known about it.

    Attributes:
        name: as the user gave it.
        model: with its weights, or on the meta device.
        architecture: the class or family.
        state: what is known of the weights; None means that they are to tell.
        run: of our own recipes and of configurations that we know; techniques can be applied to it.
        tokenizer: its own, or None.
        context_length: most tokens at once, None if not known.
        declared: how each parameter was written, where that was watched.
        optimizer: that it will be trained with, None if not known.
    """

    name: str
    model: torch.nn.Module
    architecture: str
    state: State | None = None
    run: RunConfig | None = None
    tokenizer: Tokenizer | None = None
    context_length: int | None = None
    declared: Mapping[str, DeclaredInit] = field(default_factory=dict)
    optimizer: AdamW | None = None

    @property
    def decayed_roles(self) -> tuple[str, ...] | None:
        """Roles that weight decay acts on; None if not known."""
        if self.optimizer is None:
            return None
        if self.optimizer.weight_decay == 0:
            return ()
        return tuple(role.value for role in Role if role.is_matrix and role.value not in self.optimizer.undecayed)


def load_target(
    name: str,
    *,
    techniques: Sequence[str] = (),
    assignments: Sequence[str] = (),
    trained: bool | None = None,
    theory_only: bool = False,
) -> Target:
    """Find out what a name means, and build or load the model.

    Args:
        name: a recipe, a run folder or checkpoint, a Hugging Face folder, a config.json, `module:factory`, a hub name.
        techniques: applied to a recipe or configuration before it is built; of a run they name the modules outside the
            package whose parts it uses.
        assignments: settings of it, `path=value`.
        trained: what the user says about the weights.
        theory_only: build on the meta device, read no weights.

    Raises:
        UserError: nothing of that name, or it cannot be built.
    """
    path = Path(name)
    if name in names_in("recipes"):
        return target_of_run(name, compose(name, techniques, assignments), theory_only)
    if path.is_dir() and ((path / "run.json").exists() or _is_checkpoint(path)):
        _refuse_edits(name, [each for each in techniques if not named_modules([each])], assignments)
        return _of_training(name, path, trained, theory_only, named_modules(techniques))
    if path.is_dir() and (path / "config.json").is_file():
        return _of_folder(name, path, techniques, assignments, trained, theory_only, weights=True)
    if path.is_file() and path.suffix == ".json":
        if path.name != "config.json":
            raise UserError(f"{name}: a model is described by a file called config.json; give that one, or its folder")
        return _of_folder(name, path.parent, techniques, assignments, False, theory_only, weights=False)
    if path.suffix in PICKLES and path.exists():
        raise UserError(f"{name}: {WAY_OUT.format(name=path.name)}")
    if path.is_dir():
        if not _has_weights(path):
            raise UserError(f"{name} holds no run.json, no config.json and no weights; give {TARGETS}")
        open_weights(path)  # says if there are pickles
        raise UserError(f"{name} has weights but no config.json; put the model's config.json beside them")
    if path.exists():
        if path.suffix == ".py":
            raise UserError(f"{name} is code; name the function in it that makes the model: {path.stem}:FUNCTION")
        raise UserError(f"{name} is no model; give {TARGETS}")
    if ":" in name:
        _refuse_edits(name, techniques, assignments)
        return _of_factory(name, trained, theory_only)
    return _of_hub(name, techniques, assignments, trained, theory_only)


def target_of_run(name: str, run: RunConfig, theory_only: bool) -> Target:
    """A run with its initial weights, or with shapes only."""
    run = _with_vocabulary(run)
    model = build_model(run, "meta" if theory_only else "cpu")
    return Target(
        name=name,
        model=model,
        architecture=run.model.family,
        state="initial",
        run=run,
        context_length=run.model.context_length,
        declared=_declared(run, model) if theory_only else {},
        optimizer=run.optim if isinstance(run.optim, AdamW) else None,
    )


def _declared(run: RunConfig, model: Transformer) -> dict[str, DeclaredInit]:
    """How `initialise` would write each parameter."""
    stds = standard_deviations(model, run.init, width=run.model.width, num_layers=run.model.num_layers)
    found = {name: DeclaredInit(written=True, distribution="normal", std=std, mean=0.0) for name, std in stds.items()}
    for name, _ in model.named_parameters():
        role = role_of(name, Role.OTHER)
        if name not in found and role in (Role.NORM, Role.BIAS):
            one = role is Role.NORM and name.endswith("weight")
            found[name] = DeclaredInit(written=True, distribution="constant", std=0.0, mean=float(one))
    return found


def _with_vocabulary(run: RunConfig) -> RunConfig:
    """The run with as many rows as its tokenizer will have ids; nothing is learnt for that."""
    if run.model.vocab_size is not None:
        return run
    size = parse_tokenizer(run.data.tokenizer).vocab_size
    return replace(run, model=replace(run.model, vocab_size=size))


def _is_checkpoint(path: Path) -> bool:
    return path.parent.name == "checkpoints" and (path.parent.parent / "run.json").exists()


def _of_training(name: str, path: Path, trained: bool | None, theory_only: bool, trusted: Collection[str]) -> Target:
    if theory_only:
        run, left_out = read_description(path.parent.parent if _is_checkpoint(path) else path, trusted)
        if "init" in left_out:
            raise UserError(f"{name}: its initialisation is from outside the package, so there is no theory of it")
        target = _without(target_of_run(name, run, theory_only), left_out)
        return target if trained is None else replace(target, state=_state(trained))
    found = load_trained(path, trusted=trusted)
    state: State | None = None if found.step == 0 else "trained"
    target = Target(
        name=name,
        model=found.model,
        architecture=found.run.model.family,
        state=state if trained is None else _state(trained),
        run=_with_vocabulary(found.run),
        tokenizer=found.tokenizer,
        context_length=found.run.model.context_length,
        optimizer=found.run.optim if isinstance(found.run.optim, AdamW) else None,
    )
    return _without(target, found.left_out)


def _without(target: Target, left_out: Collection[str]) -> Target:
    """The target, unknown where a default stands for what a run's training took from outside the package."""
    return replace(
        target,
        run=None if "init" in left_out else target.run,
        optimizer=None if "optim" in left_out else target.optimizer,
    )


def _of_folder(
    name: str,
    folder: Path,
    techniques: Sequence[str],
    assignments: Sequence[str],
    trained: bool | None,
    theory_only: bool,
    *,
    weights: bool,
) -> Target:
    weights = weights and _has_weights(folder)
    if weights:
        _refuse_edits(name, techniques, assignments)
    tokenizer = load_tokenizer(folder).as_published() if weights and has_tokenizer(folder) else None
    read_json(folder / "config.json")  # says if it is damaged
    try:
        config = read_config(folder)
    except UserError as not_ours:
        return _of_foreign(
            name, folder, tokenizer, trained, theory_only, weights, str(not_ours), edits=bool(techniques or assignments)
        )
    scale = read_json(folder / "config.json").get("initializer_range", 0.02)
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not scale > 0:
        raise UserError(f"{folder / 'config.json'}: initializer_range is {scale!r}; a number above 0 is needed")
    scheme = GPT2Init(scale=scale) if config.family == "gpt2" else NormalInit(scale=scale)
    run = find("recipes", f"{config.family}_nano")()
    data = replace(run.data, sequence_length=min(run.data.sequence_length, config.context_length))
    run = adapt(
        replace(run, recipe=name, model=config, init=InitConfig(scheme=scheme), data=data), techniques, assignments
    )
    target = replace(target_of_run(name, run, theory_only or weights), tokenizer=tokenizer, optimizer=None)
    if weights and not theory_only:
        target = replace(target, model=read_pretrained(folder, finite=False).build())
    return replace(target, state=("initial" if not weights else None) if trained is None else _state(trained))


def _of_foreign(
    name: str,
    folder: Path,
    tokenizer: Tokenizer | None,
    trained: bool | None,
    theory_only: bool,
    weights: bool,
    why: str,
    *,
    edits: bool,
) -> Target:
    if edits:
        raise UserError(f"{name}: --with and --set edit recipes and the models of our families; {why}")
    declared: Mapping[str, DeclaredInit] = {}
    if weights and not theory_only:
        model = load_foreign(folder, torch.float32, why)
    else:
        with InitJournal() as journal, torch.device("meta" if theory_only else "cpu"):
            model = foreign_from_config(folder, why)
        declared = journal.declared(model)
    state: State | None = None if weights else "initial"
    return Target(
        name=name,
        model=model,
        architecture=type(model).__name__,
        state=state if trained is None else _state(trained),
        tokenizer=tokenizer,
        context_length=known_context_length(model),
        declared=declared,
    )


def _of_factory(name: str, trained: bool | None, theory_only: bool) -> Target:
    make: Callable[[], Any] = find("models", name)
    if not callable(make):
        raise UserError(f"{name} is no factory: it cannot be called; write a function that returns the model")
    torch.manual_seed(0)
    try:
        with InitJournal() as journal, torch.device("meta" if theory_only else "cpu"):
            model = make()
    except UserError:
        raise
    except Exception as error:  # the user's code raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} failed: {type(error).__name__}: {reason}; it is called without arguments") from error
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"{name} returned {type(model).__name__}; a torch.nn.Module is needed")
    return Target(
        name=name,
        model=model,
        architecture=type(model).__name__,
        state=None if trained is None else _state(trained),
        context_length=known_context_length(model),
        declared=journal.declared(model),
    )


def _of_hub(
    name: str, techniques: Sequence[str], assignments: Sequence[str], trained: bool | None, theory_only: bool
) -> Target:
    if not is_hub_name(name) or "/" not in name:
        known = nearest(name, names_in("recipes"), "recipe")
        raise UserError(f"{name!r} is no recipe, no path here, no module:factory and no OWNER/NAME of the hub; {known}")
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = name.partition("@")
    wanted: dict[str, Any] = {
        "repo_id": repository,
        "revision": revision or None,
        "allow_patterns": ["config.json", *FILES] + ([] if theory_only else ["*.safetensors*"]),
    }
    try:
        folder = snapshot_download(**wanted, local_files_only=True)
    except Exception as missing:  # several classes, by version
        if constants.HF_HUB_OFFLINE or not hub_answers():
            raise UserError(
                f"{name}: there is no such path, it is not in the hub's local cache, and the hub cannot be reached "
                "from here; give a local folder"
            ) from missing
        try:
            folder = snapshot_download(**wanted)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{name}: the hub does not give it: {reason}") from error
    return replace(
        load_target(folder, techniques=techniques, assignments=assignments, trained=trained, theory_only=theory_only),
        name=name,
    )


def known_context_length(model: Any) -> int | None:
    """Most tokens that a model takes at once; None if it has no configuration that says so."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    lengths = [getattr(text, name, None) for name in CONTEXT_LENGTH]
    return next((each for each in lengths if isinstance(each, int) and each > 0), None)


def _has_weights(folder: Path) -> bool:
    """Whether a folder has weights at all; those of a kind that is not read count, and are refused when opened."""
    kinds = (SUFFIX, *PICKLES, *OTHERS)
    return any(path.suffix in kinds for path in folder.iterdir() if path.name != "training_args.bin")


def _state(trained: bool) -> State:
    return "trained" if trained else "initial"


def _refuse_edits(name: str, techniques: Sequence[str], assignments: Sequence[str]) -> None:
    if techniques or assignments:
        raise UserError(
            f"{name}: --with and --set edit a recipe or a configuration before its weights are drawn; "
            "these weights are there already"
        )
