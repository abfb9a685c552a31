"""Failures of rewards, told apart: samples taken out of torch, weights on another device, and all others."""

import pytest
import torch

import align

from align.rewards import Combined
from align.scoring import ByPopulation, Scorer


def test_a_reward_that_leaves_torch_is_told_apart_from_other_failures(case_a):
    """numpy() on samples that need a derivative is the commonest black box, and torch's own words do not say what to do."""
    x_t = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="^reward: it takes the samples out of torch.*take estimator='score'"):
        align.value_gradient(case_a, lambda z: torch.from_numpy(z.numpy().sum(1)), x_t, 0.5)
    with pytest.raises(RuntimeError, match="size of tensor"):
        align.value_gradient(case_a, lambda z: (z + torch.zeros(3)).sum(1), x_t, 0.5)


class Elsewhere(torch.nn.Module):
    """Its weights lie on another device than the samples."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, device="meta")

    def forward(self, z):
        return self.layer(z)[:, 0]


class Buffered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("target", torch.zeros(2, device="meta"))

    def forward(self, z):
        return -(z - self.target).square().sum(1)


ELSEWHERE = {
    "a module": Elsewhere,
    "a buffer": Buffered,
    "a method of one": lambda: Elsewhere().forward,
    "a sum": lambda: Combined({"light": lambda z: z[:, 0], "net": Elsewhere()}),
    "one of several": lambda: ByPopulation([Elsewhere()]),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_a_module_on_another_device_is_told_apart_from_other_failures(kind, needs_grad, samples):
    cond = (torch.zeros(6, dtype=torch.long), None) if kind == "one of several" else None
    message = "^reward: its weights are on meta and the samples on cpu .*expected both on one device.*to\\('cpu'\\)$"
    with pytest.raises(ValueError, match=message):
        Scorer(ELSEWHERE[kind]())(samples.clone().requires_grad_(needs_grad), cond)


def test_every_algorithm_tells_of_a_module_on_another_device(algorithm, case_a):
    with pytest.raises(ValueError, match="^reward: its weights are on meta and the samples on cpu"):
        algorithm(case_a, Elsewhere().double())


def test_other_failures_of_modules_keep_their_words(samples):
    class Failing(Elsewhere):
        """Fails in other ways than by where its weights are."""

        def forward(self, z):
            raise RuntimeError(words)

    for words in ("CUDA out of memory", "CUDA error: device-side assert triggered", "mat1 and mat2 shapes"):
        with pytest.raises(RuntimeError, match=f"^{words}"):
            Scorer(Failing())(samples)
    words = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    with pytest.raises(RuntimeError, match="^Expected all tensors"):  # its weights are where the samples are
        Scorer(Failing().to_empty(device="cpu"))(samples)
