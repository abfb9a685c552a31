"""What models share: the protocol, and conditioning that is repeated in the order of the draws."""

from collections import namedtuple

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.model import PosteriorSampler, fold_draws, repeat_cond, slice_cond
from diamond.nets import ResidualMLP


def test_models_that_draw_from_posteriors_satisfy_the_protocol(case_a):
    flow = Flow(ResidualMLP((2,)))
    for model in (case_a, GlassFlow(flow), FlowMap(ResidualMLP((2,), times=1)), DiamondMap(ResidualMLP((2,), times=3))):
        assert isinstance(model, PosteriorSampler)
    assert not isinstance(flow, PosteriorSampler)


def test_prior_is_standard_normal(case_a, seeded, check_law):
    x = case_a.prior(50_000, generator=seeded())
    check_law(x, torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert torch.equal(x, torch.randn(50_000, 2, dtype=torch.float64, generator=seeded()))


def test_folded_draws_come_draw_by_draw():
    rows = torch.arange(6).reshape(3, 2)
    assert fold_draws(rows, 2).tolist() == rows.tolist() + rows.tolist()
    assert torch.equal(fold_draws(rows, 4).reshape(4, 3, 2), rows.expand(4, 3, 2))


def test_conditioning_is_repeated_member_by_member():
    labels, prompts = torch.arange(3), torch.arange(6).reshape(3, 2)
    assert repeat_cond(None, 2) is None
    assert repeat_cond(labels, 2).tolist() == [0, 1, 2, 0, 1, 2]
    assert repeat_cond(labels, 2, interleave=True).tolist() == [0, 0, 1, 1, 2, 2]
    nested = repeat_cond({"labels": labels, "more": (prompts, [labels, None])}, 2)
    assert nested["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(nested["more"][0], torch.cat([prompts, prompts]))
    assert isinstance(nested["more"], tuple)
    assert nested["more"][1][1] is None


def test_a_tuple_keeps_the_names_of_its_fields():
    prompt = namedtuple("Prompt", "embedding pooled")(torch.arange(6).reshape(3, 2), torch.arange(3))
    repeated, part = repeat_cond(prompt, 2), slice_cond(prompt, slice(1, 3))
    assert type(repeated) is type(part) is type(prompt)
    assert repeated.pooled.tolist() == [0, 1, 2, 0, 1, 2]
    assert part.embedding.tolist() == [[2, 3], [4, 5]]


def test_texts_are_rows():
    assert repeat_cond(["a", "b"], 2) == ["a", "b", "a", "b"]
    assert repeat_cond(("a", "b"), 2, interleave=True) == ["a", "a", "b", "b"]
    assert slice_cond({"prompt": ["a", "b", "c"], "size": torch.arange(3)}, slice(1, 3))["prompt"] == ["b", "c"]


@pytest.mark.parametrize("interleave", [False, True])
def test_conditioning_goes_with_its_row(interleave):
    """Folded draws and repeated conditioning stay in step."""
    rows = torch.randn(3, 2)
    folded = rows.repeat_interleave(4, dim=0) if interleave else fold_draws(rows, 4)
    assert torch.equal(repeat_cond(rows, 4, interleave=interleave), folded)


def test_conditioning_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="^cond: got str, expected a tensor, texts, or a dict, tuple or list of them"):
        repeat_cond("a cat", 2)


def test_numbers_in_a_list_are_told_to_make_a_tensor():
    with pytest.raises(
        ValueError, match=r"^cond: got int, expected a tensor, .*; numbers make a tensor, like torch.tensor"
    ):
        repeat_cond([7], 2)
