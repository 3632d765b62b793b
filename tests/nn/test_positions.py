import torch

from spikeless.nn.positions import Learned, Rotary, rotate

HEAD = 8


def rotation(positions: torch.Tensor, theta: float = 10_000.0) -> tuple[torch.Tensor, torch.Tensor]:
    return Rotary(theta=theta).build(64, 32, HEAD).rotation(positions)


def test_rotary_turns_complex_numbers():
    """Channels i and i + K/2 are one complex number, which position p multiplies by exp(j p theta^(-2i/K))."""
    positions, theta = torch.tensor([0, 1, 5, 40]), 500.0
    x = torch.randn(2, 3, len(positions), HEAD, dtype=torch.float64)
    speed = theta ** (-2 * torch.arange(HEAD // 2, dtype=torch.float64) / HEAD)
    turned = torch.complex(x[..., : HEAD // 2], x[..., HEAD // 2 :]) * torch.exp(1j * positions[:, None] * speed)
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(rotate(x, rotation(positions, theta)), expected, rtol=0, atol=1e-5)


def test_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, HEAD, dtype=torch.float64)

    def score(at_q: int, at_k: int) -> torch.Tensor:
        turned_q, turned_k = (rotate(x, rotation(torch.tensor([p]))) for x, p in ((q, at_q), (k, at_k)))
        return (turned_q * turned_k).sum()

    torch.testing.assert_close(score(9, 4), score(25, 20), rtol=1e-5, atol=1e-6)
    assert (score(9, 4) - score(9, 5)).abs() > 1e-2


def test_angles_stay_in_fp32_when_the_vectors_are_bf16():
    """In bf16 position 257 would round to 256."""
    assert rotation(torch.tensor([257]))[0].dtype == torch.float32
    assert (
        rotate(torch.ones(1, 1, 1, HEAD, dtype=torch.bfloat16), rotation(torch.tensor([257]))).dtype == torch.bfloat16
    )


def test_learned_positions_are_rows_of_a_table():
    module = Learned().build(16, 32, HEAD)
    torch.nn.init.normal_(module.weight)
    assert torch.equal(module.vectors(torch.tensor([3, 15])), module.weight[[3, 15]])
    assert module.rotation(torch.arange(3)) is None


def test_rotary_adds_no_vectors_and_has_no_parameters():
    module = Rotary().build(16, 32, HEAD)
    assert module.vectors(torch.arange(3)) is None
    assert list(module.state_dict()) == []
