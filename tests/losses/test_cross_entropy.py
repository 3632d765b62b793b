import pytest
import torch
from torch.nn import functional as F

from spikeless.errors import UserError
from spikeless.losses.cross_entropy import CrossEntropy

BATCH, LENGTH, WIDTH, VOCAB = 4, 15, 16, 97


@pytest.fixture
def batch():
    hidden = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, requires_grad=True)
    return hidden, weight, torch.randint(VOCAB, (BATCH, LENGTH))


def reference(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Loss and gradients in float64, all logits at once."""
    hidden, weight = (each.detach().double().requires_grad_() for each in (hidden, weight))
    loss = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten())
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


@pytest.mark.parametrize("chunk", [1, 7, 30, 59, 60, 512])
def test_value_and_gradients(chunk, batch):
    loss = CrossEntropy(chunk_tokens=chunk)(*batch)
    got = [loss.detach(), *torch.autograd.grad(loss, batch[:2])]
    for ours, exact in zip(got, reference(*batch), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)


def test_logits_far_from_zero(batch):
    hidden, weight, targets = batch
    loss = CrossEntropy(chunk_tokens=7)(100 * hidden, weight, targets)
    torch.testing.assert_close(loss.double(), reference(100 * hidden, weight, targets)[0], rtol=1e-5, atol=1e-6)


def test_the_gradient_is_scaled_by_what_comes_from_above(batch):
    """Micro-batches divide the loss before the backward pass."""
    loss = CrossEntropy(chunk_tokens=7)(*batch)
    (whole,) = torch.autograd.grad(loss, batch[1], retain_graph=True)
    (quarter,) = torch.autograd.grad(CrossEntropy(chunk_tokens=7)(*batch) / 4, batch[1])
    torch.testing.assert_close(quarter, whole / 4)


def test_float64_stays_float64(batch):
    hidden, weight, targets = (each.double() if each.is_floating_point() else each for each in batch)
    loss = CrossEntropy(chunk_tokens=7)(hidden, weight, targets)
    torch.testing.assert_close(loss.detach(), reference(*batch)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone(wanted, batch):
    tensors = [each.detach().requires_grad_(index == wanted) for index, each in enumerate(batch[:2])]
    CrossEntropy(chunk_tokens=7)(*tensors, batch[2]).backward()
    torch.testing.assert_close(tensors[wanted].grad.double(), reference(*batch)[1 + wanted], rtol=1e-5, atol=1e-6)
    assert tensors[1 - wanted].grad is None


def test_a_second_backward_pass_is_an_error(batch):
    loss = CrossEntropy()(*batch)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken already"):
        loss.backward()


def test_no_gradient_is_needed_for_evaluation(batch):
    with torch.no_grad():
        loss = CrossEntropy()(*batch)
    torch.testing.assert_close(loss.double(), reference(*batch)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("emulated", [False, True])
def test_bf16_autocast_is_close_and_the_loss_is_fp32(emulated, batch, monkeypatch):
    """With one token a chunk, adding up in bf16 would lose per cents of the loss."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not emulated}, raising=False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = CrossEntropy(chunk_tokens=1)(*batch)
    exact = reference(*batch)
    gradients = torch.autograd.grad(loss, batch[:2])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact[0].item(), rel=2e-3)
    for ours, theirs in zip(gradients, exact[1:], strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < (1e-5 if emulated else 0.03) * theirs.norm()


def largest_allocation(loss, *shape: int) -> int:
    """The largest single allocation of a forward and backward pass [bytes]."""
    rows, width, vocab = shape
    hidden, weight = torch.randn(1, rows, width, requires_grad=True), torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(vocab, (1, rows))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss(hidden, weight, targets).backward()
    return max(event.self_cpu_memory_usage for event in profile.events())


def test_all_logits_never_exist_at_once():
    shape = rows, _, vocab = 1024, 8, 2048

    def whole(hidden, weight, targets):
        return F.cross_entropy(F.linear(hidden, weight)[0], targets[0])

    assert largest_allocation(whole, *shape) >= 4 * rows * vocab
    assert largest_allocation(CrossEntropy(chunk_tokens=64), *shape) <= 2 * 4 * 64 * vocab


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_of_nothing_is_refused(chunk):
    with pytest.raises(UserError, match="chunk_tokens"):
        CrossEntropy(chunk_tokens=chunk)
