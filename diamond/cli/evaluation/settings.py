"""How much `diamond eval` draws."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "MC", "QUICK", "TEACHER_STEPS", "Sizes"]

MC = 16  # posterior draws of a value estimate
TEACHER_STEPS = 64  # of the ODE behind the teacher's samples


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything, for all models alike.

    Attributes:
        times: outer times.
        glass_steps: inner steps of the GLASS flows that the map is compared with.
        reference_steps: inner steps of the one taken for the truth.
        draws, states: posterior draws of a state, and held-out samples noised to each time.
        test_draws: at most so many of the draws enter the two-sample test.
        test_steps: inner steps of the GLASS flows that are tested beside the map.
        ranked_draws, ranked_states: of the calibration.
        ranked_steps: inner steps of the GLASS flow that is ranked beside the map.
        samples: samples of each kind.
        map_steps: steps of the map's samples.
        chain_steps: transitions of the chain that is held against the marginals.
        data: at most so many training images are what samples are compared with.
    """

    times: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    glass_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    reference_steps: int = 128
    draws: int = 256
    states: int = 16
    test_draws: int = 128
    test_steps: tuple[int, ...] = (4, 16)
    ranked_draws: int = 15
    ranked_states: int = 256
    ranked_steps: int = 32
    samples: int = 2000
    map_steps: tuple[int, ...] = (1, 2, 4, 8)
    chain_steps: int = 8
    data: int = 10_000


FULL = Sizes()
QUICK = Sizes(
    times=(0.2, 0.5, 0.8), glass_steps=(1, 4, 16), reference_steps=32, draws=64, states=8, test_draws=64,
    ranked_states=96, ranked_steps=16, samples=400, data=2000,
)  # fmt: skip
