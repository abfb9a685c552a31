"""A class's log-probability as a reward: Bayes' rule, on a mixture whose classes are its components. Margins by hand."""

import dataclasses

import pytest
import torch

import align

from align.rewards import ClassifierLogProbability, ClassMargin
from diamond.mixture import GaussianMixtureFlow

LOGITS = torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0]], dtype=torch.float64)


def fixed(z):
    return LOGITS.to(z.dtype)


@pytest.fixture
def component_of(case_a):
    """The exact classifier of the mixture's components, up to a constant a sample."""

    def logits(z):
        gap = z[:, None] - case_a.means
        densities = -0.5 * gap.square().sum(-1) / case_a.covariances - case_a.covariances.log()
        return case_a.weights.log() + densities + z[:, :1]

    return logits


@pytest.fixture
def component(case_a):
    return lambda k: GaussianMixtureFlow(
        torch.ones(1, dtype=torch.float64), case_a.means[k : k + 1], case_a.covariances[k : k + 1]
    )


def test_reward_is_the_log_softmax_at_the_label():
    z = torch.zeros(2, 4, dtype=torch.float64)
    expected = LOGITS - LOGITS.exp().sum(1, keepdim=True).log()
    for label in range(3):
        assert torch.allclose(ClassifierLogProbability(fixed, label)(z), expected[:, label])


def test_labels_come_from_the_conditioning_where_none_is_given():
    z = torch.zeros(2, 4, dtype=torch.float64)
    expected = LOGITS - LOGITS.exp().sum(1, keepdim=True).log()
    for kind in (torch.int64, torch.int32, torch.uint8):
        found = ClassifierLogProbability(fixed)(z, torch.tensor([2, 0], dtype=kind))
        assert torch.allclose(found, torch.stack([expected[0, 2], expected[1, 0]]))


@pytest.mark.parametrize("label", [0, 1])
def test_evidence_is_the_share_of_the_class_and_the_law_its_own(
    label, case_a, component_of, component, seeded, check_tilt
):
    reward = ClassifierLogProbability(component_of, label)
    out = align.best_of_n(case_a, reward, 32, batch=2000, generator=seeded())
    check_tilt(out, component(label), case_a.weights[label].log())


def test_each_population_may_want_its_own_class(case_a, component_of, component, seeded, check_tilt):
    cond = torch.tensor([0, 1]).repeat(1000)
    out = align.best_of_n(case_a, ClassifierLogProbability(component_of), 32, batch=2000, cond=cond, generator=seeded())
    for label in (0, 1):
        fields = {name: getattr(out, name)[label::2] for name in ("samples", "log_weights", "log_z")}
        check_tilt(dataclasses.replace(out, **fields), component(label), case_a.weights[label].log())


def test_margin_is_the_lead_over_the_best_of_the_others():
    z = torch.zeros(2, 4, dtype=torch.float64)
    for label, expected in enumerate(([-1.0, -2.5], [1.0, -4.0], [-2.0, 2.5])):
        assert ClassMargin(fixed, label)(z).tolist() == pytest.approx(expected)
    assert ClassMargin(fixed)(z, torch.tensor([1, 2])).tolist() == pytest.approx([1.0, 2.5])
    assert ClassMargin(lambda z: fixed(z)[:, :2], 1)(z).tolist() == pytest.approx([1.0, -1.5])


def test_margin_has_a_gradient_where_the_probability_is_as_good_as_one():
    z = torch.full((1, 1), 50.0, requires_grad=True)
    two = lambda z: torch.cat([z, -z], 1)  # noqa: E731
    assert torch.autograd.grad(ClassMargin(two, 0)(z).sum(), z)[0].tolist() == [[2.0]]
    assert torch.autograd.grad(ClassifierLogProbability(two, 0)(z).sum(), z)[0].tolist() == [
        [pytest.approx(0.0, abs=1e-40)]
    ]


def test_the_margin_of_two_gaussian_classes_tilts_by_their_ratio(seeded, check_tilt):
    """Logits that are linear in z have a linear margin, whose tilt of a Gaussian is known."""
    law = GaussianMixtureFlow(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[0.2, -0.4]], [0.7])))
    slope = torch.tensor([0.6, -0.3], dtype=torch.float64)
    reward = ClassMargin(lambda z: torch.stack([z @ slope / 2, -z @ slope / 2], 1), 0)
    out = align.best_of_n(law, reward, 32, batch=2000, generator=seeded())
    check_tilt(out, law.tilt(slope), law.log_normaliser(slope))


def test_a_margin_needs_another_class():
    with pytest.raises(ValueError, match="^classifier: it returned logits of 1 class, expected two classes or more"):
        ClassMargin(lambda z: fixed(z)[:, :1], 0)(torch.zeros(2, 4))


@pytest.mark.parametrize("kind", [ClassifierLogProbability, ClassMargin])
def test_modules_are_registered_and_differentiated(kind):
    classifier = torch.nn.Linear(4, 3, dtype=torch.float64)
    reward = kind(classifier, 1)
    assert len(list(reward.parameters())) == 2
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(reward, (z.requires_grad_(),))


def test_it_composes():
    z = torch.zeros(2, 4, dtype=torch.float64)
    both = ClassifierLogProbability(fixed, 0) - 2 * ClassifierLogProbability(fixed)
    log_p = LOGITS.log_softmax(-1)
    found = both(z, torch.tensor([2, 1]))
    assert torch.allclose(found, log_p[:, 0] - 2 * torch.stack([log_p[0, 2], log_p[1, 1]]))


def test_what_does_not_fit_is_refused_by_name():
    z = torch.zeros(2, 4, dtype=torch.float64)
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"^label: got {label}, expected a class from 0 to 2"):
            ClassifierLogProbability(fixed, label)(z)
    with pytest.raises(ValueError, match="^label: got -1, expected a class from 0 to 2"):
        ClassifierLogProbability(fixed)(z, torch.tensor([2, -1]))
    with pytest.raises(ValueError, match=r"^label: got 1\.5, expected a class from 0 to 2"):
        ClassifierLogProbability(fixed)(z, torch.tensor([1.0, 1.5]))
    for label in (1.5, "1", True):
        with pytest.raises(ValueError, match=f"^label: got {label!r}, expected a whole number, or None"):
            ClassifierLogProbability(fixed, label)
    with pytest.raises(ValueError, match="^label: got None and no cond"):
        ClassifierLogProbability(fixed)(z)
    with pytest.raises(ValueError, match="^label: got None and a cond of dict"):
        ClassifierLogProbability(fixed)(z, {"label": torch.tensor([0, 1])})
    for cond in (torch.tensor([[0], [1]]), torch.tensor([0])):
        with pytest.raises(ValueError, match="^label: got a cond of shape .*, expected one class a sample"):
            ClassifierLogProbability(fixed)(z, cond)
    for answer in (lambda z: z[:, 0], lambda z: z[:1]):
        with pytest.raises(ValueError, match="^classifier: it returned shape"):
            ClassifierLogProbability(answer, 0)(z)
    with pytest.raises(ValueError, match="^classifier: it returned list, expected logits"):
        ClassifierLogProbability(lambda z: z.tolist(), 0)(z)


@pytest.mark.parametrize("kind", [ClassifierLogProbability, ClassMargin])
def test_what_is_no_classifier_is_refused_at_once(kind):
    with pytest.raises(
        ValueError, match=r"^classifier: got NoneType, expected a callable that gives logits \(N, classes\)$"
    ):
        kind(None, 3)
