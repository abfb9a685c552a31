"""Linear measurements with noise: the tilt of a Gaussian is its posterior, exactly."""

import dataclasses

import pytest
import torch

import align

from align.rewards import CompressedSensing, Deblurring, Inpainting, LinearInverse, SuperResolution

MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.8, 0.3, -0.2], [0.3, 0.5, 0.1], [-0.2, 0.1, 0.4]], dtype=torch.float64)
SEEN = torch.tensor([1.2, 99.0, 0.4], dtype=torch.float64)  # the second entry was not measured
MASK = torch.tensor([True, False, True])


def gaussian_posterior(noise):
    """Mean, covariance and log evidence of the measurement, relative to a perfect one, by linear algebra."""
    look = torch.eye(3, dtype=torch.float64)[MASK]
    gap = SEEN[MASK] - look @ MEAN
    spread = look @ COVARIANCE @ look.T + noise**2 * torch.eye(2, dtype=torch.float64)
    gain = torch.linalg.solve(spread, look @ COVARIANCE).T
    log_z = -0.5 * (gap @ torch.linalg.solve(spread, gap) + torch.logdet(spread / noise**2))
    return MEAN + gain @ gap, COVARIANCE - gain @ look @ COVARIANCE, log_z


def test_reward_is_the_log_likelihood_of_what_was_seen():
    reward = Inpainting(SEEN, MASK, noise=0.5)
    z = torch.tensor([[1.2, 0.0, 0.4], [0.2, 5.0, 0.9]], dtype=torch.float64)
    assert reward(z).tolist() == pytest.approx([0.0, -(1.0 + 0.25) / (2 * 0.25)])


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_importance_sampling_finds_the_gaussian_posterior(noise, normal_law, seeded, check_tilt):
    mean, covariance, log_z = gaussian_posterior(noise)
    out = align.best_of_n(
        normal_law(MEAN, COVARIANCE), Inpainting(SEEN, MASK, noise), 64, batch=2000, generator=seeded()
    )
    check_tilt(out, normal_law(mean, covariance), log_z)


def test_smc_finds_the_gaussian_posterior(normal_law, seeded, check_tilt):
    noise = 0.4
    mean, covariance, log_z = gaussian_posterior(noise)
    out = align.smc(
        normal_law(MEAN, COVARIANCE), Inpainting(SEEN, MASK, noise), 48, 5, mc=4, ess_threshold=0.8, batch=800,
        generator=seeded(),
    )  # fmt: skip
    check_tilt(out, normal_law(mean, covariance), log_z)


def test_events_have_any_shape_and_the_mask_any_kind():
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn((4, 2, 3, 5), generator=generator), torch.randn((2, 3, 5), generator=generator)
    mask = torch.rand((2, 3, 5), generator=generator) < 0.4
    expected = torch.stack([-((image - y)[mask] ** 2).sum() / (2 * 0.3**2) for image in z])
    for kind in (torch.bool, torch.uint8, torch.float32):
        assert torch.allclose(Inpainting(y, mask.to(kind), 0.3)(z), expected, rtol=1e-5)
    assert Inpainting(y, mask, 0.3)(z.double()).dtype == torch.float64


def test_entries_that_were_not_seen_may_be_nan(seeded):
    z = torch.randn((3, 4), generator=seeded(), dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([1, 0, 1, 0])
    y = torch.tensor([0.5, torch.nan, -0.5, torch.inf], dtype=torch.float64)
    reward, plain = Inpainting(y, mask, 0.3)(z), Inpainting(y.nan_to_num(0, 0), mask, 0.3)(z)
    assert torch.equal(reward, plain) and bool(reward.isfinite().all())
    assert bool(torch.autograd.grad(reward.sum(), z)[0].isfinite().all())


def test_gradients_are_those_of_the_formula():
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(Inpainting(SEEN, MASK, 0.7), (z.requires_grad_(),))


def test_measurement_moves_with_the_module():
    reward = Inpainting(SEEN, MASK, 0.5).to(torch.float32)
    assert reward.y.dtype == torch.float32 and reward.mask.tolist() == [1.0, 0.0, 1.0]
    assert set(dict(reward.named_buffers())) == {"y", "operator.mask"}


def stretched(matrix):
    """An operator that is not one of the ready ones."""
    return lambda z: (z @ matrix.T).unflatten(1, (1, -1))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


KERNEL = tensor([[0.0, 0.0, 0.0], [0.5, 1.0, -0.25], [0.0, 0.75, 0.0]])
MATRIX = tensor([[0.5, -1.0, 0.0, 0.3, 1.0, -0.4], [1.0, 0.2, -0.7, 0.0, 0.1, 0.6]])

# what makes the reward, the event's shape, the measurement's, and the operator as a matrix, by hand
PROBLEMS = {
    "super-resolution": (
        lambda y: SuperResolution(y, 2, 0.8),
        (1, 2, 4),
        (1, 1, 2),
        tensor([[0.25, 0.25, 0, 0, 0.25, 0.25, 0, 0], [0, 0, 0.25, 0.25, 0, 0, 0.25, 0.25]]),
    ),
    "super-resolution of channels": (
        lambda y: SuperResolution(y, 2, 0.5),
        (2, 2, 2),
        (2, 1, 1),
        tensor([[0.25] * 4 + [0] * 4, [0] * 4 + [0.25] * 4]),
    ),
    # (A z)_ij = k(0,0) z_ij + k(0,-1) z_i,j+1 + k(0,1) z_i,j-1 + k(1,0) z_i-1,j, and nothing past the edges
    "deblurring": (
        lambda y: Deblurring(y, KERNEL, 1.2, "zeros"),
        (1, 2, 2),
        (1, 2, 2),
        tensor([[1, 0.5, 0, 0], [-0.25, 1, 0, 0], [0.75, 0, 1, 0.5], [0, 0.75, -0.25, 1]]),
    ),
    "compressed sensing": (lambda y: CompressedSensing(y, MATRIX, 0.9), (3, 2), (2,), MATRIX),
    "any operator": (lambda y: LinearInverse(y, stretched(MATRIX), 0.9), (6,), (1, 2), MATRIX),
    "inpainting": (
        lambda y: Inpainting(y, torch.tensor([[True, False], [False, True]]), 0.7),
        (2, 2),
        (2, 2),
        torch.diag(tensor([1, 0, 0, 1])),
    ),
}


class Case:
    """A problem with its prior, a correlated Gaussian, and the posterior by linear algebra."""

    def __init__(self, name, normal_law):
        self.make, self.event, self.measurement, self.matrix = PROBLEMS[name]
        generator = torch.Generator().manual_seed(len(self.matrix.T))
        size = self.matrix.shape[1]
        self.mean = 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)
        root = torch.randn((size, size), generator=generator, dtype=torch.float64) / size**0.5
        self.covariance = root @ root.T + 0.1 * torch.eye(size)
        self.normal_law, self.prior = normal_law, normal_law(self.mean, self.covariance)
        truth = self.prior.sample(2, generator=generator)
        self.y = truth @ self.matrix.T + 0.3  # two measurements

    def reward(self, y=None):
        """The reward on the flat vectors that the prior draws."""
        self.inverse = self.make(None if y is None else y.reshape(self.measurement))
        return lambda z, cond=None: self.inverse(z.reshape(-1, *self.event), cond)

    def posterior(self, y):
        """The law of z given y, and the log of `E[exp r]`; rows that see nothing say nothing."""
        rows = self.matrix.abs().sum(1) > 0
        look, gap = self.matrix[rows], (y - self.matrix @ self.mean)[rows]
        noise = self.inverse.noise
        spread = look @ self.covariance @ look.T + noise**2 * torch.eye(len(look))
        gain = torch.linalg.solve(spread, look @ self.covariance).T
        log_z = -0.5 * (gap @ torch.linalg.solve(spread, gap) + torch.logdet(spread / noise**2))
        return self.normal_law(self.mean + gain @ gap, self.covariance - gain @ look @ self.covariance), log_z


@pytest.fixture(params=PROBLEMS)
def case(request, normal_law):
    return Case(request.param, normal_law)


def test_the_tilted_law_is_the_gaussian_posterior(case, seeded, check_tilt):
    out = align.best_of_n(case.prior, case.reward(case.y[0]), 32, batch=1500, generator=seeded())
    check_tilt(out, *case.posterior(case.y[0]))


def test_each_population_may_have_its_own_measurement(case, seeded, check_tilt):
    cond = case.y.reshape(2, *case.measurement).repeat(1000, *[1] * len(case.measurement))
    out = align.best_of_n(case.prior, case.reward(), 32, batch=2000, cond=cond, generator=seeded())
    for which, y in enumerate(case.y):
        fields = {name: getattr(out, name)[which::2] for name in ("samples", "log_weights", "log_z")}
        check_tilt(dataclasses.replace(out, **fields), *case.posterior(y))


def test_measurements_are_the_operator_and_white_noise(case, seeded, check_law):
    case.reward()
    z = case.prior.sample(1, generator=seeded())
    clean = z @ case.matrix.T
    many = z.reshape(1, *case.event).expand(20000, *case.event)
    noisy = case.inverse.measure(many, generator=seeded(1))
    assert noisy.shape == (20000, *case.measurement)
    assert torch.equal(noisy[:5], case.inverse.measure(many, generator=seeded(1))[:5])
    seen = (case.matrix.abs().sum(1) > 0).double()  # where nothing is seen there is no noise
    check_law(noisy.flatten(1), clean[0], torch.diag(seen) * case.inverse.noise**2)


def test_measurements_of_one_sample_a_population_are_conditioning(case, seeded):
    reward = case.reward()
    z = case.prior.sample(4, generator=seeded())
    y = case.inverse.measure(z.reshape(-1, *case.event), generator=seeded(1))
    expected = -(z @ case.matrix.T - y.flatten(1)).square().sum(1) / (2 * case.inverse.noise**2)
    assert torch.allclose(reward(z, y), expected)
    each = torch.stack([case.make(row)(x.reshape(1, *case.event))[0] for row, x in zip(y, z, strict=True)])
    assert torch.allclose(reward(z, y), each)
    assert torch.equal(case.make(y[0])(z.reshape(-1, *case.event), y), case.make(y[0])(z.reshape(-1, *case.event)))


def test_their_gradients_are_those_of_the_formula(case, seeded):
    reward = case.reward(case.y[0])
    assert torch.autograd.gradcheck(reward, (case.prior.sample(2, generator=seeded()).requires_grad_(),))


def test_rewards_of_half_precision_do_not_overflow():
    z = torch.full((2, 3, 32, 32), 1.0, dtype=torch.float16)
    reward = SuperResolution(torch.zeros(3, 8, 8), 4, 0.05)(z)
    assert reward.dtype == torch.float32 and reward.tolist() == pytest.approx([-192 / 0.005] * 2)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^mask: got shape \(2,\), expected that of y, \(3,\)"):
        Inpainting(SEEN, MASK[:2], 0.5)
    for noise in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="^noise: got"):
            Inpainting(SEEN, MASK, noise)
        with pytest.raises(ValueError, match="^noise: got"):
            SuperResolution(None, 2, noise)
    with pytest.raises(ValueError, match=r"^z: got events of shape \(2,\), expected that of the mask, \(3,\)"):
        Inpainting(SEEN, MASK, 0.5)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"^y: got measurements of shape \(1, 3, 3\), expected \(1, 2, 2\)"):
        SuperResolution(torch.zeros(1, 3, 3), 2, 0.5)(torch.zeros(5, 1, 4, 4))
    with pytest.raises(ValueError, match=r"^y: got shape \(3,\), expected \(2,\), one number a row of matrix"):
        CompressedSensing(SEEN, MATRIX, 0.5)
    with pytest.raises(ValueError, match="^y: got list, expected a tensor, or None"):
        LinearInverse([1.0], stretched(MATRIX), 0.5)
    with pytest.raises(ValueError, match="^y: got list, expected a tensor, or None"):
        Inpainting([0.0], torch.ones(1), 0.1)
    for mask in ([1.0], None):
        with pytest.raises(ValueError, match=f"^mask: got {type(mask).__name__}, expected a tensor"):
            Inpainting(torch.zeros(1), mask, 0.1)
    with pytest.raises(ValueError, match="^matrix: got NoneType, expected a tensor"):
        CompressedSensing(torch.zeros(1), None, 0.1)
    for noise in ("loud", None, torch.ones(2)):
        with pytest.raises(ValueError, match="^noise: got .*, expected a positive standard deviation"):
            Inpainting(None, torch.ones(1), noise)
    with pytest.raises(ValueError, match="^operator: got Tensor, expected a callable"):
        LinearInverse(SEEN, MATRIX, 0.5)


def test_measurements_that_are_missing_or_do_not_fit_are_refused():
    z = torch.zeros(4, 3)
    reward = Inpainting(None, MASK, 0.5)
    with pytest.raises(ValueError, match="^y: got None and no cond, expected measurements from either"):
        reward(z)
    with pytest.raises(ValueError, match="^y: got None and a cond of dict"):
        reward(z, {"y": z})
    with pytest.raises(ValueError, match=r"^cond: got shape \(3, 3\) for 4 samples, expected one measurement for each"):
        reward(z, z[:3])
    with pytest.raises(ValueError, match=r"^y: got measurements of shape \(2,\), expected \(3,\)"):
        reward(z, z[:, :2])
