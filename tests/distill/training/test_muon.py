"""Muon: its matrices against their polar factors, which parameters it turns, AdamW's steps for the rest, and resuming."""

import copy

import pytest
import torch

from torch import nn

import distill

from diamond.nets import ResidualMLP
from diamond.randomness import seeded as randomly
from distill.training.muon import MOMENTUM, Muon, matrices_of, orthogonalised

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.0}


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_singular_values_come_near_one_and_the_vectors_stay(shape, seeded):
    matrices = (
        torch.randn(3, *shape, dtype=torch.float64, generator=seeded()) * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    )
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ orthogonalised(matrices) @ vh.mT
    values = inner.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inner, torch.diag_embed(values), atol=1e-9, rtol=0)
    reached = s / s.norm(dim=1, keepdim=True) > 0.02  # smaller ones need more rounds
    assert 0.6 < values[reached].min() and values.max() < 1.25


def test_no_gradient_turns_nothing():
    assert torch.equal(orthogonalised(torch.zeros(1, 16, 16)), torch.zeros(1, 16, 16))


def test_a_step_is_the_polar_factor_of_the_running_mean_times_its_scale(seeded):
    generator = seeded()
    weight = nn.Parameter(torch.randn(32, 4, 3, 3, dtype=torch.float64, generator=generator))
    start, optimizer, mean = weight.detach().clone(), Muon([weight], [], **OPTIONS), torch.zeros(32, 36)
    expected = start.flatten(1)
    for _ in range(3):
        gradient = torch.randn(32, 36, dtype=torch.float64, generator=generator)
        weight.grad = gradient.reshape(weight.shape)
        optimizer.step()
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        ahead = (1 - MOMENTUM) * gradient + MOMENTUM * mean
        expected = expected - 1e-2 * 0.2 * 36**0.5 * orthogonalised(ahead[None])[0]
    torch.testing.assert_close(weight.detach().flatten(1), expected)
    size = (weight.detach() - start).square().mean().sqrt() / 3e-2  # as large as AdamW's, which is at most 1
    assert 0.05 < size < 1


def test_it_takes_the_steps_of_torch_on_matrices(seeded):
    theirs = getattr(torch.optim, "Muon", None)
    if theirs is None:
        pytest.skip("this torch has no Muon")
    generator = seeded()
    one = nn.Parameter(torch.randn(32, 48, generator=generator))
    other = nn.Parameter(one.detach().clone())
    mine = Muon([one], [], **OPTIONS)
    known = theirs([other], lr=1e-2, weight_decay=0.0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    start = one.detach().clone()
    for _ in range(5):
        one.grad = torch.randn(32, 48, generator=generator)
        other.grad = one.grad.clone()
        mine.step()
        known.step()
    assert (one - other).norm() < 0.02 * (one - start).norm()  # theirs iterates in bfloat16


def test_everything_else_takes_the_steps_of_adamw(seeded):
    generator = seeded()
    matrix, bias = nn.Parameter(torch.randn(16, 16, generator=generator)), nn.Parameter(torch.zeros(16))
    alone = nn.Parameter(torch.zeros(16))
    both, plain = Muon([matrix], [bias], **OPTIONS), torch.optim.AdamW([alone], **OPTIONS)
    for _ in range(4):
        matrix.grad = torch.randn(16, 16, generator=generator)
        bias.grad = torch.randn(16, generator=generator)
        alone.grad = bias.grad.clone()
        both.step()
        plain.step()
    assert torch.equal(bias, alone) and bool((bias != 0).all())


def learner():
    with randomly(0):
        net = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16))
    matrices = matrices_of(net)
    return net, Muon(matrices, [net[0].bias, net[2].bias], **OPTIONS)


def learn(net, optimizer, x, **closure):
    def loss():
        optimizer.zero_grad()
        value = net(x).square().mean()
        value.backward()
        return value

    return optimizer.step(loss) if closure else (loss(), optimizer.step())[0]


def test_a_closure_is_asked_for_the_gradients_before_any_step(seeded):
    x = torch.randn(8, 16, generator=seeded())
    (one, first), (other, second) = learner(), learner()
    for _ in range(3):
        assert torch.equal(learn(one, first, x), learn(other, second, x, closure=True))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


def test_a_copy_and_a_restored_optimizer_go_on_alike(seeded):
    x = torch.randn(8, 16, generator=seeded())
    (net, optimizer), (restored, anew) = learner(), learner()
    learn(net, optimizer, x)
    copied, again = copy.deepcopy((net, optimizer))
    restored.load_state_dict(net.state_dict())
    anew.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for pair in ((net, optimizer), (copied, again), (restored, anew)):
        learn(*pair, x)
    for other in (copied, restored):
        assert all(torch.equal(*pair) for pair in zip(net.parameters(), other.parameters(), strict=True))


def test_parameters_that_come_later_are_for_adamw():
    _, optimizer = learner()
    later = nn.Parameter(torch.zeros(3))
    optimizer.add_param_group({"params": [later]})
    later.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    torch.testing.assert_close(later.detach(), torch.tensor([-1e-2, 1e-2, -1e-2]))


def test_weights_in_groups_of_channels_are_no_matrices():
    assert not matrices_of(nn.Conv2d(32, 32, 7, groups=32)) and len(matrices_of(nn.Conv2d(32, 32, 7))) == 1


def test_layers_with_few_inputs_or_outputs_embeddings_and_norms_are_no_matrices():
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.Conv2d(32, 32, 3),
        nn.GroupNorm(4, 32),
        nn.Linear(32, 64),
        nn.Embedding(64, 64),
        nn.Linear(64, 4),
    )
    assert [tuple(weight.shape) for weight in matrices_of(net)] == [(32, 32, 3, 3), (64, 32)]
    shared = nn.Linear(16, 16)
    assert len(matrices_of(nn.Sequential(shared, shared))) == 1


def trained(out, steps=6, **more):
    with randomly(0):
        net = ResidualMLP((2,), 32, 1)
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    options = {"batch": 8, "optimizer": "muon", "warmup": 1, "progress": False, "save_every": 3, **more}
    return distill.train_flow(data, net, steps=steps, out=out, **options)


def test_a_run_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole.ckpt").state_dict()
    from distill.training import trainer

    step = trainer._Run.step

    def interrupted(self, number):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer._Run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut.ckpt")
    monkeypatch.undo()
    resumed = trained(tmp_path / "cut.ckpt").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    plain = trained(tmp_path / "plain.ckpt", optimizer="adamw").state_dict()
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())


def test_an_unknown_optimizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^optimizer: got 'sgd', expected one of adamw, muon"):
        trained(tmp_path / "a.ckpt", optimizer="sgd")
    assert not list(tmp_path.iterdir())
