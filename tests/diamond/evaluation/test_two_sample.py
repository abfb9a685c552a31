"""The two-sample test: its null law, and differences that it must see."""

import pytest
import torch

from sklearn.linear_model import LogisticRegression

from diamond.evaluation import two_sample_test


def scores_of(found):
    auc = (found.auc - 0.5) / found.auc_error
    return torch.tensor([auc, (found.accuracy - 0.5) / found.accuracy_error], dtype=torch.float64)


def test_equal_posteriors_give_one_half_within_the_stated_errors(correlated, seeded, check_mean):
    model, generator = correlated(), seeded()
    zs = []
    for _ in range(300):
        x_t = torch.randn(4, 2, generator=generator, dtype=torch.float64)
        x, y = (model.posterior(x_t, 0.4, 12, generator=generator) for _ in range(2))
        zs.append(scores_of(two_sample_test(x, y, x_t, classifier=LogisticRegression())))
    zs = torch.stack(zs)
    check_mean(zs, torch.zeros(2).double())
    check_mean(zs.square(), torch.ones(2).double())


def test_trees_pass_equal_posteriors(correlated, seeded):
    model, generator = correlated(), seeded()
    x_t = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    x, y = (model.posterior(x_t, 0.4, 100, generator=generator) for _ in range(2))
    assert bool((scores_of(two_sample_test(x, y, x_t, generator=generator)).abs() < 4).all())


@pytest.mark.parametrize("wrong", ["shifted", "narrow", "shifted by state"])
def test_trees_see_wrong_posteriors(wrong, correlated, seeded):
    model, generator = correlated(), seeded()
    x_t = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    x, y = (model.posterior(x_t, 0.4, 200, generator=generator) for _ in range(2))
    if wrong == "shifted":
        y = y + 0.3
    elif wrong == "narrow":
        y = y.mean(0) + 0.6 * (y - y.mean(0))
    else:  # alike over all states together
        y = y + 0.4 * torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    found = two_sample_test(x, y, x_t, generator=generator)
    assert bool((scores_of(found) > 5).all()) and found.auc < 0.95


def test_the_same_generator_gives_the_same_figures(seeded):
    x, y = torch.randn(2, 20, 3, 2, generator=seeded(1))
    assert two_sample_test(x, y, generator=seeded(2)) == two_sample_test(x, y, generator=seeded(2))


def test_what_is_refused():
    x = torch.zeros(8, 3, 2)
    with pytest.raises(ValueError, match="^x, y: got shapes"):
        two_sample_test(x, x[:, :2])
    with pytest.raises(ValueError, match="^x, y: got shapes"):
        two_sample_test(x[:1], x[:1])
    with pytest.raises(ValueError, match=r"^states: got shape \(2, 5\), expected \(3, G\)"):
        two_sample_test(x, x, torch.zeros(2, 5))


def test_a_seed_is_no_generator():
    x = torch.zeros(8, 3, 2)
    with pytest.raises(ValueError, match="^generator: got 0, expected a torch.Generator"):
        two_sample_test(x, x, generator=0)
