"""Every algorithm on pipelines: rewards rise, evidence is exact where it is known, prompts and costs are respected."""

import pytest
import torch

import align

from align.rewards import Brightness, Decoded
from examples.tiny_pipelines import PIPELINES

PROMPTS = ["a cat", "two dogs, in the rain"]
WEIGHTED = ("sana-sprint",)
quiet = pytest.mark.filterwarnings("ignore::diamond.degeneracy.DegenerateWeights")


class Counted:
    """Rows that a pipeline's network is asked for, told by the network itself."""

    def __init__(self, model):
        self.rows = 0
        self.hook = model.network.network.register_forward_hook(self.count)

    def count(self, module, inputs, output):
        self.rows += len(output[0])


@pytest.fixture
def counted():
    """Counts what models ask of their networks, for one test."""
    made = []

    def count(model):
        made.append(Counted(model))
        return made[-1]

    yield count
    for one in made:
        one.hook.remove()


def paired_score(rewards, base):
    """How many standard errors the mean of `rewards` is above that of `base`, member by member."""
    gap = (rewards - base).flatten().double()
    return float(gap.mean() / (gap.std() / len(gap) ** 0.5))


@quiet
@pytest.mark.parametrize("estimator", ["reparam", "plugin"])
@pytest.mark.parametrize("name", PIPELINES)
def test_guidance_moves_a_reward_up(name, estimator, model_of, seeded):
    """Against the same walk from the same noise without guidance."""
    model = model_of(name, cheap=1)
    reward = Decoded(300.0 * Brightness(), model)
    options = {"mc": 1} if estimator == "reparam" else {}
    plain, guided = (
        align.guide(
            model, reward, 6, 3, estimator=estimator, scale=scale, eta=0.0, generator=seeded(1), **options
        ).rewards
        for scale in (0.0, 1.0)
    )
    assert guided.isfinite().all()
    assert paired_score(guided, plain) > 4


@quiet
@pytest.mark.parametrize("constant", [0.0, -1.5])
@pytest.mark.parametrize("name", PIPELINES)
def test_evidence_of_a_constant_reward_is_that_constant(name, constant, model_of, seeded):
    model = model_of(name, cheap=1)
    reward = Decoded(lambda images: images.new_full((len(images),), constant), model)
    out = align.smc(model, reward, 3, 3, mc=2, generator=seeded(1))
    assert out.log_z.dtype == torch.float32
    if constant == 0:
        assert float(out.log_z) == 0 and bool((out.log_weights == 0).all())
    assert float(out.log_z) == pytest.approx(constant, abs=1e-5)
    assert out.samples.isfinite().all() and out.samples.shape == (1, 3, *model.event_shape)


@quiet
@pytest.mark.parametrize("name", PIPELINES)
def test_populations_have_prompts_of_their_own(name, model_of, seeded, close):
    """With a generator each, two prompts in one call are two calls."""
    model = model_of(name, PROMPTS, cheap=2)
    seen = []

    def reward(images, prompts):
        seen.extend(prompts)
        return images.flatten(1).mean(1)

    out = align.best_of_n(model, Decoded(reward, model), 3, batch=2, cond=model.cond, generator=[seeded(7), seeded(8)])
    assert seen == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    samples = []
    for prompt, seed in zip(PROMPTS, (7, 8), strict=True):
        alone = model_of(name, prompt, cheap=2)
        rewarded = Decoded(lambda images: images.flatten(1).mean(1), alone)
        one = align.best_of_n(alone, rewarded, 3, generator=[seeded(seed)])
        samples.append(one.samples)
    close(out.samples, torch.cat(samples), 5e-5)
    swapped = align.best_of_n(
        model, Decoded(reward, model), 3, batch=2, cond=model.cond.flip(0), generator=[seeded(7), seeded(8)]
    )
    assert float((swapped.samples - out.samples).abs().max()) > 1e-4


@quiet
@pytest.mark.parametrize("name", ["flux", "sana-sprint", "stable-diffusion"])
def test_a_population_does_not_depend_on_the_others(name, model_of, seeded, close):
    model = model_of(name, cheap=1)
    reward = Decoded(50.0 * Brightness(), model)
    both = align.smc(model, reward, 3, 3, mc=2, batch=2, generator=[seeded(3), seeded(4)], ess_threshold=0)
    alone = align.smc(model, reward, 3, 3, mc=2, generator=[seeded(4)], ess_threshold=0)
    close(both.samples[1:], alone.samples, 5e-5)
    close(both.log_z[1:], alone.log_z, 1e-4)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_guided_samples_cost_two_evaluations(scale, model_of, seeded, counted):
    """As the network counts the rows that it is asked for."""
    model = model_of("stable-diffusion", guidance_scale=scale, glass_steps=2, checkpoint=False)
    times = 2 if scale > 1 else 1
    rows = counted(model)
    before = model.nfe
    model.velocity(torch.zeros(3, *model.event_shape), 0.5)
    assert model.nfe - before == rows.rows == 3 * times
    rows.rows = 0
    out = align.guide(model, Decoded(Brightness(), model), 2, 3, mc=2, generator=seeded(1))
    assert out.nfe == rows.rows and out.nfe % times == 0
    assert out.nfe == 3 * (2 + 2 * 2 * 2) * times
    assert out.nfe_backward == 2 * 2 * 2 * 2 * times  # at t = 0 the gradient's limit is a difference of means


def test_every_algorithm_takes_a_reward_of_images(model_of, seeded):
    model = model_of("stable-diffusion", PROMPTS, glass_steps=1)
    reward = Decoded(20.0 * Brightness(), model)
    options = {"batch": 2, "cond": model.cond, "generator": seeded(0)}
    for out in (
        align.search(model, reward, 2, 2, 2, **options),
        align.smc(model, reward, 2, 2, mc=2, proposal="reparam", **options),
        align.guide(model, reward, 2, 2, mc=2, estimator="score", **options),
        align.guide(model, reward, 2, mc=1, times=model.times(3), **options),
    ):
        assert out.samples.shape == (2, 2, *model.event_shape) and out.rewards.isfinite().all()
        (picture, other) = model.images(out.best())
        assert picture.size == other.size == (64, 64)
