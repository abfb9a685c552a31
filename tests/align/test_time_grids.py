"""The grids that algorithms walk: the usual number of steps, or one's own, or one's own times, and no two that differ."""

import inspect

import pytest
import torch

import align

from align.time_grid import time_grid
from diamond.flow_map import FlowMap

USUAL = {"best_of_n": 1, "search": 8, "smc": 8, "guide": 16}

RUNS = [align.best_of_n, align.search, align.smc, align.guide]
TIMES = [0, 0.1, 0.5, 0.8, 1]


@pytest.fixture(params=RUNS, ids=lambda run: run.__name__)
def run(request):
    """Each algorithm in turn."""
    return request.param


def walked(run, model, reward, **options):
    """The settings of a run's result, and the times that its steps reached."""
    reached = []
    out = run(model, reward, 3, callback=lambda step: reached.append(step.t), **options)
    assert out.settings["steps"] == len(reached)
    return reached


def test_grids_of_time_are_uniform_or_as_given():
    assert torch.equal(time_grid(4, None, 9), torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    assert time_grid(None, None, 2).tolist() == [0.0, 0.5, 1.0]
    assert time_grid(None, [0, 0.1, 1], 9).tolist() == time_grid(2, [0, 0.1, 1], 9).tolist() == [0.0, 0.1, 1.0]
    assert time_grid(None, torch.tensor([0.0, 1.0]), 9).tolist() == [0.0, 1.0]


BAD_TIMES = [[0.1, 1], [0, 0.9], [0, 0.5, 0.5, 1], [0, 0.7, 0.3, 1], [0], [], [[0, 1]], [0, torch.nan, 1]]


@pytest.mark.parametrize("times", BAD_TIMES)
def test_grids_that_do_not_rise_from_noise_to_data_are_refused(times):
    with pytest.raises(ValueError, match="^times: got .*expected times that rise from 0 to 1"):
        time_grid(None, times, 4)


@pytest.mark.parametrize("steps", [0, -3, 2.5, True])
def test_grids_without_steps_are_refused(steps):
    with pytest.raises(ValueError, match="^steps: got"):
        time_grid(steps, None, 4)


def test_steps_and_times_that_contradict_each_other_are_refused(run, case_a, mild):
    for steps in (3, 5, USUAL[run.__name__]):
        with pytest.raises(
            ValueError, match=f"^steps: got {steps} beside times of 4 steps, expected 4; leave one out$"
        ):
            run(case_a, mild, 3, steps=steps, times=TIMES)
    with pytest.raises(ValueError, match="^steps: got 0, expected a whole number of at least 1"):
        run(case_a, mild, 3, steps=0, times=TIMES)
    with pytest.raises(ValueError, match="^times: got"):
        run(case_a, mild, 3, times=[0, 0.5, 0.4, 1])


@pytest.mark.parametrize("options", [{"times": TIMES}, {"times": torch.tensor(TIMES), "steps": 4}])
def test_given_times_are_walked(options, run, case_a, mild):
    assert walked(run, case_a, mild, **options) == pytest.approx(TIMES[1:])


def test_steps_are_even_and_as_many_as_said_or_usual(run, case_a, mild):
    usual = USUAL[run.__name__]
    assert f"{usual} by default" in inspect.getdoc(run)
    for options, count in (({}, usual), ({"steps": 3}, 3), ({"steps": None}, usual)):
        assert walked(run, case_a, mild, **options) == pytest.approx([k / count for k in range(1, count + 1)])


GAIN = 0.8  # of the map: where every state stands at the end, as a share


class Shrinking(torch.nn.Module):
    """The velocity of a map that takes each state to a share of itself, whatever its time."""

    event_shape = (1,)

    def forward(self, x, t, cond=None, times=()):
        return (GAIN - 1) * x / (1 - t)[:, None]


@pytest.mark.parametrize("times", [[0, 1], [0, 0.9, 1], [0, 0.2, 0.3, 0.7, 1]])
def test_few_steps_of_a_map_have_the_law_of_their_grid(times, seeded, check_mean):
    r"""With noise afresh at each step the variance goes from v to `(t' gain)^2 v + (1 - t')^2`, whence the last one."""
    variance = 1.0
    for t in times[1:]:
        variance = (t * GAIN) ** 2 * variance + (1 - t) ** 2
    model = FlowMap(Shrinking())
    out = align.best_of_n(model, lambda z: 0 * z[:, 0], 100_000, times=times, rho=0.0, generator=seeded())
    z = out.samples[0].double()
    check_mean(torch.cat([z, z.square()], dim=1), torch.tensor([0.0, variance], dtype=torch.float64), limit=4)
    assert out.nfe == 100_000 * (len(times) - 1)
