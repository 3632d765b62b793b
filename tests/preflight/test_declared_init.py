import copy
import math

import pytest
import torch
from torch import nn

from spikeless.preflight.declared_init import InitJournal
from spikeless.preflight.measurements import DeclaredInit

DEVICES = ["cpu", "meta"]


class One(nn.Module):
    """A module with a single parameter."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)


def journal_of(make, device="cpu"):
    with torch.device(device), InitJournal() as journal:
        model = make()
    return journal.declared(model)


def of(make, device="cpu") -> DeclaredInit:
    return journal_of(lambda: One(make()), device)["weight"]


def empty():
    return torch.empty(64, 48)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("make", "distribution", "std"),
    [
        (lambda: nn.init.normal_(empty(), std=0.02), "normal", 0.02),
        (lambda: nn.init.normal_(nn.Parameter(empty()), std=0.02), "normal", 0.02),
        (lambda: nn.Parameter(empty()).data.normal_(0, 0.1), "normal", 0.1),
        (lambda: nn.init.uniform_(empty(), -1, 1), "uniform", 1 / math.sqrt(3)),
        (lambda: nn.init.kaiming_uniform_(empty(), a=math.sqrt(5)), "uniform", 1 / math.sqrt(3 * 48)),
        (lambda: nn.init.kaiming_normal_(empty()), "normal", math.sqrt(2 / 48)),
        (lambda: nn.init.xavier_normal_(empty()), "normal", math.sqrt(2 / 112)),
        (lambda: nn.init.xavier_uniform_(empty()), "uniform", math.sqrt(2 / 112)),
        (lambda: torch.randn(64, 48) * 0.02, "normal", 0.02),
        (lambda: 0.02 * torch.randn(64, 48), "normal", 0.02),
        (lambda: torch.randn(64, 48) / 4, "normal", 0.25),
        (lambda: torch.randn(64, 48).mul_(0.5).div_(2), "normal", 0.25),
        (lambda: torch.rand(64, 48).mul_(2).sub_(1), "uniform", 1 / math.sqrt(3)),
        (lambda: (torch.rand(64, 48) - 0.5) * 2, "uniform", 1 / math.sqrt(3)),
        (lambda: -torch.randn(64, 48), "normal", 1.0),
        (lambda: empty().copy_(torch.randn(64, 48).mul_(3)), "normal", 3.0),
        (lambda: copy.deepcopy(nn.Parameter(torch.randn(64, 48) * 0.3)), "normal", 0.3),
        (lambda: nn.init.normal_(empty(), std=0.02).to(torch.bfloat16), "normal", 0.02),
        (lambda: nn.init.normal_(empty().t(), std=0.02), "normal", 0.02),
        (lambda: torch.cat([torch.randn(8, 48), torch.randn(8, 48)]), "normal", 1.0),
        (lambda: torch.zeros(64, 48), "constant", 0.0),
        (lambda: torch.full((64, 48), 0.5), "constant", 0.0),
        (lambda: empty().fill_(1.0), "constant", 0.0),
        (lambda: nn.init.ones_(empty()), "constant", 0.0),
        (lambda: nn.init.normal_(empty(), std=0.0), "constant", 0.0),
        (lambda: nn.init.orthogonal_(empty()), "", 1 / math.sqrt(64)),
        (lambda: nn.init.eye_(empty()), "", None),
    ],
)
def test_the_law_of_a_draw_is_told(make, distribution, std, device):
    found = of(make, device)
    assert (found.written, found.distribution) == (True, distribution)
    assert found.std == (None if std is None else pytest.approx(std))


@pytest.mark.parametrize("device", DEVICES)
def test_memory_that_nobody_wrote_is_told(device):
    assert not of(empty, device).written
    assert not of(lambda: torch.empty_like(torch.randn(3, 3)), device).written
    assert not of(lambda: empty().mul_(0.5), device).written, "scaling garbage does not initialise it"
    assert not of(lambda: empty().to(torch.bfloat16), device).written


@pytest.mark.parametrize("device", DEVICES)
def test_a_truncated_normal_says_where_it_was_cut_and_the_std_that_is_left(device):
    found = of(lambda: nn.init.trunc_normal_(empty(), std=0.02, a=-0.04, b=0.04), device)
    assert found.distribution == "truncated normal"
    assert (found.low, found.high) == (pytest.approx(-2), pytest.approx(2))
    assert found.std == pytest.approx(0.02 * 0.87962566)
    absolute = of(lambda: nn.init.trunc_normal_(empty(), std=0.02), device)
    assert (absolute.low, absolute.high) == (pytest.approx(-100), pytest.approx(100))
    assert absolute.std == pytest.approx(0.02)


@pytest.mark.parametrize(("a", "b", "mean"), [(-1.0, 1.0, 0.0), (-2.0, 0.5, 0.1), (0.4, 0.6, 0.0)])
def test_the_moments_of_a_truncated_normal_are_those_of_its_draws(a, b, mean):
    with InitJournal() as journal:
        model = One(nn.init.trunc_normal_(torch.empty(400, 400), mean=mean, std=0.5, a=a, b=b))
    found = journal.declared(model)["weight"]
    assert found.std == pytest.approx(model.weight.std().item(), rel=0.01)
    assert found.mean == pytest.approx(model.weight.mean().item(), abs=0.005)


@pytest.mark.parametrize("device", DEVICES)
def test_a_truncated_normal_written_out_by_hand_is_recognised(device):
    """The inverse error function of a uniform draw, as timm and older versions of torch do it."""

    def draw(cut: float):
        inside = math.erf(cut / math.sqrt(2))
        draws = empty().uniform_(-inside, inside).erfinv_().mul_(0.02 * math.sqrt(2)).add_(0.0)
        return draws.clamp_(-cut * 0.02, cut * 0.02)

    found = of(lambda: draw(2.0), device)
    assert found.distribution == "truncated normal"
    assert found.high == pytest.approx(2)
    assert found.std == pytest.approx(0.02 * 0.87962566)
    assert of(lambda: draw(100.0), device).high == pytest.approx(100)


@pytest.mark.parametrize("device", DEVICES)
def test_a_draw_that_is_scaled_keeps_its_cut_in_units_of_its_std(device):
    found = of(lambda: nn.init.trunc_normal_(empty(), std=0.02, a=-0.06, b=0.06).mul_(-0.1), device)
    assert (found.low, found.high) == (pytest.approx(-3), pytest.approx(3))
    assert found.std == pytest.approx(0.002, rel=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_writing_to_a_part_leaves_the_whole_what_it_was(device):
    embedding = journal_of(lambda: nn.Embedding(7, 5, padding_idx=0), device)["weight"]
    assert (embedding.distribution, embedding.std) == ("normal", 1.0)

    def zero_a_row():
        weight = nn.Parameter(torch.randn(8, 4))
        with torch.no_grad():
            weight[2].zero_()
            weight[3:5] = 0
        return weight

    assert of(zero_a_row, device).distribution == "normal"
    assert not of(lambda: _with_part_written(4), device).written


def _with_part_written(rows: int):
    weight = torch.empty(8, 4)
    weight[:rows].normal_()
    return weight


@pytest.mark.parametrize("device", DEVICES)
def test_parts_that_cover_the_whole_are_put_together(device):
    def draw(*stds: float):
        weight = nn.Parameter(empty())
        for std, part in zip(stds, weight.data.chunk(len(stds)), strict=True):
            nn.init.normal_(part, std=std)
        return weight

    assert of(lambda: draw(0.02, 0.02, 0.02), device) == of(lambda: nn.init.normal_(empty(), std=0.02), device)
    mixed = of(lambda: draw(0.02, 0.02, 0.05), device)
    assert mixed.written
    assert (mixed.distribution, mixed.std) == ("", None)


@pytest.mark.parametrize("device", DEVICES)
def test_parameters_that_are_views_of_one_buffer_are_told_apart(device):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            buffer = torch.empty(30)
            self.first, self.second, self.third = (nn.Parameter(part) for part in buffer.chunk(3))
            nn.init.normal_(self.first, std=0.1)
            nn.init.zeros_(self.second)

    found = journal_of(Flat, device)
    assert (found["first"].std, found["second"].distribution) == (0.1, "constant")
    assert not found["third"].written


@pytest.mark.parametrize("device", DEVICES)
def test_tied_and_replaced_weights_are_followed(device):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight
            self.replaced = nn.Parameter(empty())
            self.replaced.data = torch.randn(3, 3) * 0.5

    found = journal_of(Tied, device)
    assert found["head.weight"] == found["embedding.weight"]
    assert found["head.weight"].std == 1.0
    assert found["replaced"].std == 0.5


def test_values_from_elsewhere_are_copied_ones():
    elsewhere = torch.randn(64, 48)
    assert of(lambda: empty().copy_(elsewhere)).distribution == "copied"
    assert of(lambda: elsewhere).distribution == "copied"

    def load():
        model = nn.Linear(48, 64, bias=False)
        model.load_state_dict({"weight": elsewhere})
        return model

    assert journal_of(load)["weight"].distribution == "copied"


@pytest.mark.parametrize("device", DEVICES)
def test_an_operation_it_does_not_know_counts_as_written(device):
    found = of(lambda: empty().exponential_(), device)
    assert found.written
    assert (found.distribution, found.std) == ("", None)


def test_it_draws_and_changes_nothing():
    def make():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5))
        nn.init.trunc_normal_(model[0].weight, std=0.1, a=-0.1, b=0.1)
        return nn.init.orthogonal_(model[0].weight) + model[0].bias

    plain = make()
    with InitJournal():
        watched = make()
    assert torch.equal(plain, watched)


def test_memory_is_not_kept_and_addresses_are_not_confused():
    with InitJournal() as journal:
        for _ in range(200):
            torch.randn(100, 100)
        model = One(torch.empty(100, 100))
    assert not journal.declared(model)["weight"].written
    assert all(memory.alive.expired() for memory in list(journal._memories.values())[:200])


def test_the_functions_of_torch_are_put_back():
    before = dict(vars(nn.init))
    with InitJournal():
        pass
    assert dict(vars(nn.init)) == before


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_initialisation_of_transformers_is_followed(family, device):
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 97, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **sizes, initializer_range=0.03, bos_token_id=1, eos_token_id=2)
    config.intermediate_size = 64
    found = journal_of(lambda: transformers.AutoModelForCausalLM.from_config(config), device)
    assert all(each.written for each in found.values())
    drawn = {name: each.std for name, each in found.items() if each.distribution == "normal"}
    scaled = {name: std for name, std in drawn.items() if name.endswith("c_proj.weight")}
    assert len(scaled) == (4 if family == "gpt2" else 0)
    assert set(scaled.values()) <= {0.03 / math.sqrt(4)}
    assert {std for name, std in drawn.items() if name not in scaled} == {0.03}
    head = found["lm_head.weight"]
    assert head.std == 0.03
    norms = [each for name, each in found.items() if "norm" in name or "ln_" in name]
    assert norms
    assert all(each.distribution == "constant" for each in norms)


def test_a_model_of_transformers_is_left_unmarked_on_the_meta_device():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, bos_token_id=1, eos_token_id=2)
    with torch.device("meta"), InitJournal() as journal:
        model = transformers.GPT2LMHeadModel(config)
    journal.declared(model)
    assert not any("_is_hf_initialized" in vars(module) for module in model.modules())


def test_our_own_initialisation_is_followed(tiny_run, build):
    run = tiny_run("gpt2", num_layers=2, width=32)
    with InitJournal() as journal:
        model = build(run)
    found = journal.declared(model)
    expected = run.init.std
    from spikeless.roles import role_of

    for name, parameter in model.named_parameters():
        role = role_of(name)
        if role.is_matrix:
            assert found[name].std == pytest.approx(expected(role, *parameter.shape, width=32, num_layers=2))
        else:
            assert found[name].distribution == "constant"
