"""The README and the pages in docs/ are true: links, the technique table, commands and Python examples."""

import ast
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from spikeless.cli._app import app
from spikeless.cli._options import described_run
from spikeless.cli.list import ROOMS
from spikeless.data import parse_corpus, parse_tokenizer
from spikeless.data.mixture import parse_mixture
from spikeless.errors import UserError
from spikeless.experiments.grid import Axes, parse_numbers, plan

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = pytest.mark.parametrize(
    "page", [README, *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: str(path.relative_to(ROOT))
)
GROUP = typer.main.get_command(app)
VERBS = {}  # `data prepare` is one
for name, command in GROUP.commands.items():  # type: ignore[attr-defined]
    VERBS |= {f"{name} {sub}": each for sub, each in getattr(command, "commands", {}).items()} or {name: command}
USAGE_ERROR = typer.BadParameter.__bases__[0]  # of click, which newer versions of typer bring along
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def check_command(line: str) -> None:
    """Fails on a command that names an unknown verb, option, recipe, technique, setting, corpus or make target."""
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        assert set(words) <= TARGETS, line
        return
    assert program == "spikeless", line
    verb = next((each for each in (" ".join(words[:2]), words[0]) if each in VERBS), words[0])
    words = [verb, *words[len(verb.split()) :]]
    given = VERBS[verb].make_context(verb, words[1:]).params
    if verb == "data prepare":
        given |= {"recipe": "gpt2_nano", "techniques": None, "assignments": None, "data": given["spec"]}
    if words[0] == "list":
        assert given["what"] in ROOMS
    if "recipe" not in given:
        return
    if given["recipe"] is None:  # of a run folder
        assert given["resume"] or given["branch_from"], line
        given["recipe"] = "gpt2_nano"
    data, *options = (given.get(name) for name in ("data", "tokenizer", "device", "precision"))
    sources = [spec for _, spec in parse_mixture(data) if not spec.startswith("shards:")] if data else []
    options = [sources[0] if sources else None, *options]
    if words[0] == "compare":
        base = described_run(given["recipe"], None, None, *options)
        lrs, depths, widths = (
            parse_numbers(given[name], f"--{name}", kind)
            for name, kind in (("lrs", float), ("depths", int), ("widths", int))
        )
        axes = Axes(lrs=lrs, depths=depths, widths=widths, seeds=given["seeds"])
        run = plan(base, given["arms"], Path("out"), axes, given["assignments"] or ())[0].run
    else:
        run = described_run(given["recipe"], given["techniques"], given["assignments"], *options)
    for spec in sources or [run.data.spec]:
        parse_corpus(spec)
    parse_tokenizer(run.data.tokenizer)


# --- README ---


def test_the_technique_table_is_fresh():
    spec = importlib.util.spec_from_file_location("techniques", ROOT / "docs" / "techniques.py")
    techniques = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(techniques)
    text = README.read_text(encoding="utf-8")
    assert techniques.with_table(text) == text, "run `python docs/techniques.py`"
    assert techniques.with_table(text.replace("| `mlra` |", "| `mlar` |")) == text


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_the_test_command_is_the_one_that_ci_runs():
    assert "make test" in commands(README)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


# --- every page ---


@PAGES
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [each for each in targets if not (page.parent / each).exists()]


@PAGES
def test_commands_are_what_the_command_line_takes(page, extended):
    for line in commands(page):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "spikeless trian gpt2_nano",
        "spikeless train gpt2_nano --wiht mlra",
        "spikeless train gpt2_nona",
        "spikeless train gpt2_nano --with mlar",
        "spikeless train gpt2_nano --with 'mlra(rnak=4)'",
        "spikeless train gpt2_nano --set optim.rl=1",
        "spikeless train gpt2_nano --data 'txet:*.md'",
        "spikeless train gpt2_nano --data 'mix:0.5*pydocs+0.5*txet:*.md'",
        "spikeless train gpt2_nano --tokenizer bpe",
        "spikeless data prepare",
        "spikeless data prepare txet:a --out b",
        "spikeless data prepair text:a --out b",
        "spikeless data",
        "spikeless compare deep_nano --arms 'baseline; mlar'",
        "spikeless compare deep_nano",
        "spikeless compare deep_nano --arms baseline --lrs 1e-3,high",
        "spikeless compare deep_nano --arms baseline --depths 1.5",
        "spikeless compare deep_nano --arms baseline --widths 7",
        "spikeless compare deep_nano --arms baseline --lrs 1e-3 --set optim.lr=1",
        "spikeless compare deep_nano --arms 'baseline; scaled_embed' --set model.embedding.multiplier=2",
        "spikeless list recipe",
        "spikeless generate",
        "make tset",
        "pip install spikeless",
    ],
)
def test_a_wrong_command_would_be_found(line):
    with pytest.raises((AssertionError, KeyError, UserError, USAGE_ERROR)):
        check_command(line)


@PAGES
def test_python_examples_compile_and_import_what_exists(page, extended):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)


# --- docs/commands.md ---


def test_every_verb_has_its_section():
    titles = re.findall(
        r"^## ([a-z][a-z ]*)$", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(titles) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_section_names_the_options_of_its_verb_and_no_others(verb):
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"\n## {verb}\n")[2], flags=re.MULTILINE)[0]
    prose = re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)
    have = {option for parameter in VERBS[verb].params for option in parameter.opts if option.startswith("--")}
    assert set(re.findall(r"`(--[a-z-]+)`", prose)) | {"--help"} == have | {"--help"}
