import json
import sys

import pytest

from spikeless.config import (
    Call,
    Change,
    diff,
    find,
    from_dict,
    get_at,
    names_in,
    parse_calls,
    paths,
    replace_at,
    set_at,
    to_dict,
)
from spikeless.errors import UserError
from spikeless.init.small import SmallInit
from spikeless.nn.norm import LayerNorm, RMSNorm
from spikeless.optim.gradients.clip_norm import ClipNorm
from spikeless.optim.schedules.wsd import WSD
from spikeless.run import RunConfig
from spikeless.stabilizers import apply
from spikeless.stabilizers.mlra import MLRA

RUN = find("recipes", "gpt2_nano")()


# --- paths ---


def test_replace_at_changes_a_copy():
    before = to_dict(RUN)
    changed = replace_at(RUN, {"optim.lr": 0.5, "model.norm.eps": 1e-3, "gradients.0.max_norm": 2.0})
    assert (changed.optim.lr, changed.model.norm.eps, changed.gradients[0].max_norm) == (0.5, 1e-3, 2.0)
    assert to_dict(RUN) == before


def test_replace_at_replaces_one_item_of_a_tuple():
    two = replace_at(RUN, {"gradients": (ClipNorm(max_norm=1.0), ClipNorm(max_norm=2.0))})
    changed = replace_at(two, {"gradients.1": ClipNorm(max_norm=3.0)})
    assert [each.max_norm for each in changed.gradients] == [1.0, 3.0]


def test_every_path_can_be_read_and_a_branch_comes_before_its_leaves():
    found = paths(RUN)
    for path in found:
        get_at(RUN, path)
        assert "." not in path or found.index(path.rpartition(".")[0]) < found.index(path)
    assert {"gradients.0.max_norm", "model.norm.eps", "init.target_std.query"} <= set(found)


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("model.widht", "'model.width'"),
        ("lr", "'optim.lr'"),
        ("zzz", "valid paths"),
        ("gradients.7", "'gradients.0'"),
        ("model.width.x", "'model.width'"),
        ("", "valid paths"),
    ],
)
@pytest.mark.parametrize("use", [get_at, lambda run, path: replace_at(run, {path: 1})], ids=["get", "replace"])
def test_an_unknown_path_names_the_nearest(use, path, suggestion):
    with pytest.raises(UserError, match="has no") as error:
        use(RUN, path)
    assert suggestion in str(error.value)


# --- differences ---


def test_diff_lists_the_leaves_that_differ():
    changed = replace_at(RUN, {"optim.lr": 0.5, "gradients.0.max_norm": 2.0})
    assert diff(RUN, changed) == [Change("optim.lr", 1e-3, 0.5), Change("gradients.0.max_norm", 1.0, 2.0)]
    assert str(diff(RUN, changed)[0]) == "optim.lr: 0.001 -> 0.5"


def test_a_swapped_part_is_one_change():
    (change,) = diff(RUN, replace_at(RUN, {"model.norm": RMSNorm()}))
    assert (change.path, change.old, change.new) == ("model.norm", LayerNorm(), RMSNorm())


def test_diff_of_tuples_of_different_length_is_one_change():
    (change,) = diff(RUN, replace_at(RUN, {"gradients": ()}))
    assert (change.path, change.new) == ("gradients", ())


def test_diff_tells_a_type_from_an_equal_value():
    assert diff(RUN, replace_at(RUN, {"optim.lr": 1e-3})) == []
    one = replace_at(RUN, {"gradients.0.max_norm": 1})
    assert [change.path for change in diff(RUN, one)] == ["gradients.0.max_norm"]


# --- path=value ---


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("optim.lr=3e-4", 3e-4),
        ("optim.lr=1", 1.0),
        (" steps = 7", 7),
        ("model.tied=False", False),
        ("model.tied=true", True),
        ("model.vocab_size=none", None),
        ("model.vocab_size=50257", 50257),
        ("precision=bf16", "bf16"),
        ("data.spec=text:notes/*.txt,split=a", "text:notes/*.txt,split=a"),
        ("metrics.diagnostics=['tev']", ("tev",)),
        ("metrics.diagnostics=[]", ()),
        ("init.target_std.head=0.5", 0.5),
        ("init.scheme=small", SmallInit()),
        ("model.norm=RMSNorm(eps=1e-6)", RMSNorm(eps=1e-6)),
        ("model.embedding.norm=LayerNorm", LayerNorm()),
        ("model.embedding.norm=none", None),
        ("schedule=wsd(decay_share=0.5)", WSD(decay_share=0.5)),
        ("gradients=clip_norm(max_norm=2)+clip_norm", (ClipNorm(max_norm=2.0), ClipNorm())),
        ("gradients=none", ()),
        ("gradients=()", ()),
        ("gradients.0.max_norm=0.1", 0.1),
    ],
)
def test_set_at_reads_a_value(assignment, value):
    path = assignment.partition("=")[0].strip()
    got = get_at(set_at(RUN, assignment), path)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "write path=value"),
        ("=3", "write path=value"),
        ("steps=1.5", "steps: expected a whole number, got 1.5"),
        ("steps=true", "steps: expected a whole number, got True"),
        ("steps='7'", "steps: expected a whole number, got '7'"),
        ("steps=0", "steps=0 is out of range"),
        ("optim.lr=fast", "optim.lr: expected a number, got 'fast'"),
        ("optim.lr=nan", "optim.lr: expected a number, got 'nan'"),
        ("optim.lr=true", "optim.lr: expected a number, got True"),
        ("optim.lr=__import__('os').getpid()", "optim.lr: expected a number"),
        ("optim.lr=-1", "optim.lr=-1.0 is out of range"),
        ("optim.lr=", "optim.lr: expected a number, got ''"),
        ("model.tied=1", "model.tied: expected true or false, got 1"),
        ("precision=fp8", "precision: expected one of fp32, bf16, auto, got 'fp8'"),
        ("data.spec=3", "data.spec: expected a word, got 3"),
        ("metrics.diagnostics=tev", "metrics.diagnostics: expected a list, got 'tev'"),
        ("metrics.diagnostics=[1]", "metrics.diagnostics: expected a word, got 1"),
        ("optim.lrr=1", "did you mean 'optim.lr'"),
        ("gradients.0=clip_norm", "set the whole of 'gradients'"),
        ("gradients=clip_nrm", "did you mean 'clip_norm'"),
        ("model.norm=LayerNorm+RMSNorm", "model.norm holds one part, not 2"),
        ("model.norm=LayerNrm", "did you mean 'LayerNorm'"),
        ("model.norm=LayerNorm(epz=1)", "LayerNorm has no argument 'epz'; did you mean 'eps'"),
        ("model.norm=LayerNorm(eps=small)", "LayerNorm(eps=…): expected a number, got 'small'"),
        ("model.norm=none", "model.norm: expected a part"),
        ("model.norm=3", "cannot read the model.norm '3'"),
    ],
)
def test_set_at_says_what_is_wrong(assignment, message):
    with pytest.raises(UserError) as error:
        set_at(RUN, assignment)
    assert message in str(error.value)


# --- the grammar of calls ---


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("mlra", [("mlra", {})]),
        ("mlra()", [("mlra", {})]),
        ("mlra(rank=16)+embed_norm", [("mlra", {"rank": 16}), ("embed_norm", {})]),
        (" a ( x = 1 , y=2 ) + b ", [("a", {"x": 1, "y": 2}), ("b", {})]),
        ("a(x=factor)", [("a", {"x": "factor"})]),
        ("a(x=-1.5, y=+2, z=1e-3)", [("a", {"x": -1.5, "y": 2, "z": 1e-3})]),
        ("a(x='b)c', y=\"d(+\")+e", [("a", {"x": "b)c", "y": "d(+"}), ("e", {})]),
        ("a(x=(1, (2, 3)), y=[4, -5])", [("a", {"x": (1, (2, 3)), "y": [4, -5]})]),
        ("a(x=true, y=False, z=none)", [("a", {"x": True, "y": False, "z": None})]),
        ("my_lab.tricks:Foo(x=1)", [("my_lab.tricks:Foo", {"x": 1})]),
    ],
)
def test_parse_calls(text, calls):
    parsed = parse_calls(text)
    assert [(call.name, dict(call.arguments)) for call in parsed] == calls
    assert parse_calls("+".join(map(str, parsed))) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "a+",
        "+a",
        "a b",
        "a(x=1)b",
        "a(x=1)(y=2)",
        "a(x=1",
        "a(x='1)",
        "a)",
        "a(x=(1])",
        "a(1)",
        "a(x)",
        "a(x=)",
        "a(x=1, x=2)",
        "a(*b)",
        "a(**b)",
        "3a",
        "a-b",
        "a:b:c",
        "a(x=\0)",
    ],
)
def test_what_is_not_a_call_is_refused(text):
    with pytest.raises(UserError, match="cannot read"):
        parse_calls(text)


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os')",
        "__import__('os').system('true')",
        "().__class__",
        "[x for x in (1,)]",
        "(lambda: 0)",
        "1 if 1 else 2",
        "f'{1}'",
        "a.b",
        "2**9",
        "(x := 1)",
        "-" * 100_000 + "1",
        "(" * 500 + ")" * 500,
    ],
)
def test_an_argument_is_never_evaluated(value):
    with pytest.raises(UserError, match="cannot read the arguments"):
        parse_calls(f"mlra(rank={value})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlra(rnk=1)", "mlra has no argument 'rnk'; did you mean 'rank'"),
        ("mlra(rank=half)", "mlra(rank=…): expected one of parity, got 'half'"),
        ("mlra(rank=true)", "mlra(rank=…): expected"),
        ("mlra(init=prodct)", "expected one of product, factor, spectral, got 'prodct'"),
        ("mlar", "no stabilizer is called 'mlar'; did you mean 'mlra'"),
        ("os:getcwd(x=1)", "os:getcwd takes no arguments"),
    ],
)
def test_a_call_checks_its_arguments(text, message):
    (call,) = parse_calls(text)
    with pytest.raises(UserError) as error:
        call.build("stabilizers")
    assert message in str(error.value)


@pytest.mark.parametrize(("rank", "kind"), [("8", int), ("0.25", float), ("parity", str)])
def test_a_call_keeps_whole_numbers_whole(rank, kind):
    """A rank of 1 (one) and of 1.0 (all) mean different things, so a union must not turn an int into a float."""
    (call,) = parse_calls(f"mlra(rank={rank})")
    assert type(call.build("stabilizers").rank) is kind


# --- parts by name ---


def test_names_in_lists_the_files_of_a_folder_and_the_parts_of_a_file():
    assert names_in("init") == ("gpt2", "normal", "small", "xavier")
    assert names_in("nn.norm") == ("LayerNorm", "RMSNorm")


def test_find_inside():
    assert find("stabilizers", "mlra") is MLRA
    assert find("nn.norm", "RMSNorm") is RMSNorm


@pytest.mark.parametrize("name", ["_draw", "__init__", "smal", "../small", "small.SmallInit", "Norm", ""])
@pytest.mark.parametrize("room", ["init", "nn.norm"])
def test_find_refuses_what_is_not_listed(room, name):
    with pytest.raises(UserError, match="is called"):
        find(room, name)


def test_find_outside(tmp_path, monkeypatch):
    (tmp_path / "outside_lab.py").write_text("class Foo: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find("stabilizers", "outside_lab:Foo").__name__ == "Foo"


@pytest.mark.parametrize("name", ["no_such_lab:Foo", "json:NoSuchPart", "json:", ":Foo", ".json:Foo"])
def test_find_outside_says_what_cannot_be_imported(name):
    with pytest.raises(UserError, match="write MODULE:NAME"):
        find("stabilizers", name)


# --- storing ---


@pytest.mark.parametrize("technique", [*names_in("stabilizers"), "mlra(rank=0.25)", "mlra(rank=3, init=factor)", None])
@pytest.mark.parametrize("recipe", names_in("recipes"))
def test_a_stored_run_is_read_back_exactly(recipe, technique):
    run = find("recipes", recipe)()
    run = apply(run, [technique]) if technique else run
    back = from_dict(json.loads(json.dumps(to_dict(run), allow_nan=False)), RunConfig)
    assert back == run
    assert diff(run, back) == []


@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "subprocess:Popen",
        "evil:Part",
        "..evil:Part",
        "..x:Y",
        "nn/../../evil:Part",
        "tests.foo:Bar",
        "config:find",
        "config:dataclass",
        "recipes.gpt2_nano:gpt2_nano",
        "nn.norm:Norm",
        "nn.norm:LayerNorm.build",
        "nn.attention:Dense",
        "nn.norm",
        "nn.norm:",
        ":LayerNorm",
        "",
    ],
)
def test_a_stored_run_cannot_name_other_code(kind, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("from dataclasses import dataclass\n\n@dataclass\nclass Part: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = to_dict(RUN)
    data["model"]["norm"] = {"type": kind}
    with pytest.raises(UserError, match=r"not part of spikeless.*--with"):
        from_dict(data, RunConfig)
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("steps", 1.0, "whole number"),
        ("steps", True, "whole number"),
        ("steps", None, "whole number"),
        ("optim", {"type": "optim.adamw:AdamW", "momentum": 1}, "momentum"),
        ("optim", {"lr": 1}, "type"),
        ("optim", None, "type"),
        ("model", {}, "can read"),
        ("gradients", "clip_norm", "list"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_damaged_stored_run_is_refused(path, value, message):
    with pytest.raises(UserError, match=message):
        from_dict(to_dict(RUN) | {path: value}, RunConfig)


@pytest.mark.parametrize("data", [None, [], "run", 3])
def test_what_is_not_a_tree_is_refused(data):
    with pytest.raises(UserError):
        from_dict(data, RunConfig)


def test_a_stored_whole_number_is_read_as_a_float_where_one_belongs():
    data = to_dict(RUN)
    data["optim"]["lr"] = 1
    assert type(from_dict(data, RunConfig).optim.lr) is float


def test_a_call_without_arguments_builds_the_default():
    assert Call("LayerNorm", {}).build("nn.norm") == LayerNorm()
