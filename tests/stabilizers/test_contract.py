import importlib
import itertools

import pytest
import torch

from spikeless.config import diff, find, names_in, to_dict
from spikeless.errors import UserError
from spikeless.roles import role_of
from spikeless.stabilizers import HEADER_FIELDS, apply, headers, parse_header, read_header

NAMES = names_in("stabilizers")
TECHNIQUES = pytest.mark.parametrize("name", NAMES)
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
PAIRS = list(itertools.combinations(NAMES, 2))


def outcome(run, techniques):
    """The run, or the reason why it is refused."""
    try:
        return apply(run, techniques)
    except UserError as error:
        return str(error)


# --- one technique ---


@TECHNIQUES
def test_the_header_is_complete(name):
    header = read_header(name)
    assert header.summary.endswith(".")
    assert all((header.acts_on, header.prevents, header.watch, header.cost, header.reference))
    assert name not in header.conflicts
    assert set(header.conflicts) <= set(NAMES)


@TECHNIQUES
def test_a_file_has_one_public_name(name):
    module = importlib.import_module(f"spikeless.stabilizers.{name}")
    assert len(module.__all__) == 1
    assert find("stabilizers", name) is getattr(module, module.__all__[0])


@TECHNIQUES
@FAMILIES
def test_a_technique_is_pure(name, family, tiny_run):
    run = tiny_run(family)
    before, edit = to_dict(run), find("stabilizers", name)()
    assert edit(run) == edit(run)
    assert to_dict(run) == before


@TECHNIQUES
@FAMILIES
def test_a_technique_changes_something_and_is_recorded(name, family, tiny_run):
    run = tiny_run(family)
    changed = {change.path for change in diff(run, apply(run, [name]))}
    assert "techniques" in changed
    assert apply(run, [name]).techniques == (name,)
    already = {"gpt2_init": "gpt2"}.get(name) == family
    assert already or len(changed) > 1


@TECHNIQUES
@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
def test_a_technique_trains(name, family, tied, tiny_run, build):
    run = tiny_run(family, name, tied=tied)
    model, tokens = build(run), torch.randint(97, (2, 17))
    loss = run.loss(model.hidden(tokens[:, :-1]), model.output_weight, tokens[:, 1:])
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), parameter_name
        zero_by_symmetry = parameter_name.endswith("attention.key.bias")  # softmax ignores a shift of all scores
        assert zero_by_symmetry or (parameter.grad != 0).any(), parameter_name
        role_of(parameter_name)


@TECHNIQUES
def test_a_technique_given_twice_is_refused(name, tiny_run):
    with pytest.raises(UserError, match="given twice"):
        apply(tiny_run(), [name, name])


# --- two techniques ---


@pytest.mark.parametrize(("one", "other"), PAIRS)
@FAMILIES
def test_a_pair_gives_the_same_run_in_either_order_or_a_reason(one, other, family, tiny_run):
    run = tiny_run(family)
    forth, back = outcome(run, [one, other]), outcome(run, [other, one])
    assert forth == back
    if isinstance(forth, str):
        assert one in forth
        assert other in forth
        return
    first, second = (find("stabilizers", name)() for name in (one, other))
    assert first(second(run)) == second(first(run))


@TECHNIQUES
def test_a_conflict_is_refused_from_both_sides(name, tiny_run):
    for other in read_header(name).conflicts:
        for pair in ([name, other], [other, name], [f"{name}+{other}"]):
            with pytest.raises(UserError, match="exclude each other"):
                apply(tiny_run(), pair)


def test_which_pairs_exclude_each_other(tiny_run):
    refused = {pair for pair in PAIRS if isinstance(outcome(tiny_run(), pair), str)}
    assert refused == {
        ("dense_scale_matched", "mlra"),
        ("embed_norm", "embed_std_one"),
        ("embed_norm", "scaled_embed"),
        ("embed_std_one", "scaled_embed"),
        ("gpt2_init", "small_init"),
        ("gpt2_init", "xavier_init"),
        ("small_init", "xavier_init"),
    }


def test_all_that_do_not_exclude_each_other_go_together(tiny_run, build):
    names = ["scaled_embed", "embed_detach", "mlra(rank=4)", "small_init"]
    runs = {str(apply(tiny_run("llama"), order)) for order in itertools.permutations(names)}
    assert len(runs) == 1
    build(tiny_run("llama", *names))(torch.zeros(1, 4, dtype=torch.long))


# --- techniques from outside ---


def test_two_that_write_one_field_are_refused_without_a_declared_conflict(tmp_path, monkeypatch, tiny_run):
    (tmp_path / "conflict_lab.py").write_text(
        "from dataclasses import dataclass\n"
        "from spikeless.config import replace_at\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Twice:\n"
        "    factor: float = 2.0\n"
        "    def __call__(self, run):\n"
        "        return replace_at(run, {'model.embedding.multiplier': self.factor})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert apply(tiny_run(), ["conflict_lab:Twice(factor=3)"]).model.embedding.multiplier == 3.0
    with pytest.raises(UserError, match=r"both set model\.embedding\.multiplier"):
        apply(tiny_run(), ["conflict_lab:Twice", "scaled_embed"])


@pytest.mark.parametrize("lab", ["a_one_sided_lab", "z_one_sided_lab"])
def test_a_conflict_that_one_side_declares_is_enough(lab, tmp_path, monkeypatch, tiny_run):
    """Techniques are sorted by name: the one that declares may be met first or second."""
    fields = "\n".join(f"{each}: {'mlra' if each == 'Conflicts' else 'x'}" for each in HEADER_FIELDS)
    (tmp_path / f"{lab}.py").write_text(f'"""Summary.\n\n{fields}\n"""\n\ndef shy():\n    return lambda run: run\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert apply(tiny_run(), [f"{lab}:shy"]).techniques == (f"{lab}:shy",)
    with pytest.raises(UserError, match="exclude each other"):
        apply(tiny_run(), ["mlra", f"{lab}:shy"])


# --- headers ---


def test_headers_lists_every_technique():
    assert [header.name for header in headers()] == list(NAMES)


@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_a_header_without_a_field_is_refused(field):
    lines = [f"{each}:  something" for each in HEADER_FIELDS if each != field]
    with pytest.raises(UserError, match=f"lacks {field}"):
        parse_header("mine", "\n".join(["Summary.", "", *lines]))


def test_a_header_field_may_go_on_in_the_next_line():
    text = "Summary.\n\n" + "\n".join(f"{each}:  first\n  second" for each in HEADER_FIELDS) + "\n\nProse: not a field."
    header = parse_header("mine", text)
    assert header.reference == "first second"
    assert header.conflicts == ("first second",)
