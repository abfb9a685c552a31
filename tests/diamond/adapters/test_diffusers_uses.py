"""What a network of diffusers can be used for: forward derivatives, posterior draws, guidance by labels."""

import pytest
import torch

from diamond import DiamondMap
from diamond.classifier_free import ClassifierFree
from diamond.flow import Flow
from diamond.glass import GlassFlow
from diamond.nets import grow
from distill import distill
from distill.losses import eulerian, lagrangian, mean_flow, mean_square

ROWS = 3


def test_forward_derivatives_pass(model, path, states, between):
    """Held against differences coarser than the single precision in which diffusers embeds its time."""
    net, cond = model
    flow = Flow.from_diffusers(net, interpolant=path)
    x, direction, t = states(), states(1), between(path, [150, 400, 650])

    def check(call, point, direction, step):
        _, slope = torch.func.jvp(call, (point,), (direction,))
        expected = (call(point + step * direction) - call(point - step * direction)) / (2 * step)
        torch.testing.assert_close(slope, expected, rtol=0, atol=0.03 * float(expected.detach().std()))

    check(lambda x: flow.velocity(x, t, cond=cond), x, direction, 1e-3)
    check(lambda t: flow.velocity(x, t, cond=cond), t, torch.ones_like(t), 5e-5)


def test_losses_with_forward_derivatives_have_their_gradients(model, states, seeded):
    """By central differences over all weights at once. Mean flow holds its target fixed, here where the weights began."""
    net, cond = model
    net = grow(Flow.from_diffusers(net).net, 1, 3).double()
    students = DiamondMap(net, event_shape=(2, 8, 8))
    x, x_t, velocity = (states(seed) for seed in range(3))
    s, r, t = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.9, 0.6], [0.3, 0.4, 0.8]], dtype=torch.float64)
    displace = lambda x, s, r: students.displace(x, s, r, x_t, t, cond=cond)  # noqa: E731
    average = lambda: (displace(x, s, r) - x) / (r - s)[:, None, None, None]  # noqa: E731
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in weights]
    turn = [0.1 * torch.randn(w.shape, dtype=w.dtype, generator=seeded(i)) for i, w in enumerate(weights)]

    def check(loss, height=None):
        pulls = torch.autograd.grad(loss().sum(), weights, materialize_grads=True, allow_unused=True)
        ends = []
        for step in (1e-5, -1e-5, 0.0):
            with torch.no_grad():
                for weight, before, change in zip(weights, start, turn, strict=True):
                    weight.copy_(before + step * change)
            ends.append((height or loss)().detach().sum())
        rise = sum((pull * change).sum() for pull, change in zip(pulls, turn, strict=True))
        torch.testing.assert_close(rise, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)
        assert abs(float(rise)) > 1e-3

    check(lambda: lagrangian(displace, lambda y, r: torch.zeros_like(y), torch.ones_like, x, s, r))
    check(lambda: eulerian(displace, torch.ones_like, x, s, r, velocity))
    _, rate = torch.func.jvp(lambda x, s: displace(x, s, r), (x, s), (velocity, torch.ones_like(s)))
    target = (average() + rate).detach()
    check(
        lambda: mean_flow(displace, torch.ones_like, x, s, r, velocity),
        lambda: mean_square(average() - target),
    )


def test_posterior_draws_of_a_view_run(model, seeded, states):
    net, cond = model
    flow = Flow.from_diffusers(net.float(), prediction="v_prediction")
    view, x, noise = GlassFlow(flow, steps=4), states().float(), torch.stack([states(1), states(2)]).float()
    drawn = view.posterior(x, 0.5, 2, cond=cond, noise=noise)
    assert flow.nfe == 2 * ROWS * 4
    for row in range(ROWS):  # each with its own label
        label = None if cond is None else cond[row : row + 1]
        for i in range(2):
            alone = view.posterior(x[row : row + 1], 0.5, cond=label, noise=noise[i : i + 1, row : row + 1])
            torch.testing.assert_close(drawn[i, row], alone[0, 0], rtol=1e-4, atol=1e-4)
    assert flow.sample(2, 3, cond=None if cond is None else cond[:2], generator=seeded()).isfinite().all()


def test_a_transformer_knows_its_label_for_none_and_is_guided_by_it(sown, makers, states):
    net = sown(makers["transformer"]).double()
    flow = Flow.from_diffusers(net)
    x, t, cond = states(), 0.4, torch.arange(ROWS)
    torch.testing.assert_close(flow.velocity(x, t), flow.velocity(x, t, cond=torch.full((ROWS,), 5)))
    guided = ClassifierFree(flow, 3.0)
    assert guided.no_label == flow.net.classes == 5
    labelled, unlabelled = flow.velocity(x, t, cond=cond), flow.velocity(x, t)
    torch.testing.assert_close(guided.velocity(x, t, cond=cond), unlabelled + 3 * (labelled - unlabelled))


def test_a_labelled_unet_has_a_label_for_none_if_it_is_told_one(sown, makers, states):
    net, x = sown(makers["unet"], num_class_embeds=5).double(), states()
    with pytest.raises(ValueError, match=r"^cond: got NoneType, expected class labels \(3,\), whole numbers"):
        Flow.from_diffusers(net).velocity(x, 0.5)
    with pytest.raises(ValueError, match="^no_label: got None"):
        ClassifierFree(Flow.from_diffusers(net))
    flow = Flow.from_diffusers(net, no_label=4)
    assert (flow.net.classes, ClassifierFree(flow).no_label) == (4, 4)
    torch.testing.assert_close(flow.velocity(x, 0.5), flow.velocity(x, 0.5, cond=torch.full((ROWS,), 4)))


def test_a_transformer_stays_in_evaluation_mode(sown, makers, states):
    """In training mode it would leave labels out at random."""
    flow = Flow.from_diffusers(sown(makers["transformer"])).train()
    x, cond = states().float().repeat(20, 1, 1, 1), torch.arange(60) % 5
    assert flow.training
    assert torch.equal(flow.velocity(x, 0.5, cond=cond), flow.velocity(x, 0.5, cond=cond))


@pytest.mark.parametrize("loss", ["lsd", "esd", "meanflow"])
def test_networks_that_attend_are_distilled(loss, sown, makers, seeded):
    flow = Flow.from_diffusers(sown(makers["unet"]), prediction="flow", event_shape=(2, 8, 8))
    data = torch.randn(16, 2, 8, 8, generator=seeded())
    student = distill(flow, data, loss=loss, steps=2, batch=4, progress=False)
    before, after = grow(flow.net, 1, 3).state_dict(), student.net.state_dict()
    assert all(weight.isfinite().all() for weight in after.values())
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
