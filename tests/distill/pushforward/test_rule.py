"""A rule with and without a transformation around it."""

import torch

from distill.rule import Rule

DRAWS = torch.randn(2, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class Cube(Rule):
    """`(x^3, 3 x^2 dx)`, and the square that its gradient uses."""

    @staticmethod
    def forward(x, change):
        square = x * x
        return square * x, 3 * square * change, square

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs, output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, error, error_of_change, _):
        x, change, square = ctx.saved_tensors
        back = 0 if error is None else 3 * square * error
        if error_of_change is None:
            return back, None
        return back + 6 * x * change * error_of_change, 3 * square * error_of_change


def test_gradients_are_its_own_with_and_without_a_transformation():
    x, change = DRAWS.clone()
    expected = 3 * x**2 + 6 * x * change, 3 * x**2

    def height(x, change):
        value, moved, _ = Cube.of(x, change)
        return (value + moved).sum()

    leaves = x.clone().requires_grad_(), change.clone().requires_grad_()
    for found in (torch.autograd.grad(height(*leaves), leaves), torch.func.grad(height, argnums=(0, 1))(x, change)):
        torch.testing.assert_close(found, expected)


def test_what_is_held_fixed_passes_nothing_back():
    x, change = (part.requires_grad_() for part in DRAWS.clone())
    value, _, square = Cube.of(x, change)
    assert not square.requires_grad
    of_x, of_change = torch.autograd.grad(value.sum(), (x, change), allow_unused=True)
    torch.testing.assert_close(of_x, 3 * x.detach() ** 2)
    assert of_change is None
