"""Labels: those that are no class are refused where samples are asked for, and a model that never learned to go without
them says so, once."""

import copy
import warnings

import pytest
import torch

import align

from diamond.checkpoint import load
from diamond.classifier_free import ClassifierFree
from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.labelled import Labelled
from diamond.nets import Preconditioned, ResidualMLP
from distill import distill, distill_flow_map, train_flow

CLASSES = 3


def network(classes=CLASSES, **inputs):
    return Preconditioned(ResidualMLP((2,), width=8, depth=1, classes=classes, **inputs), std=1.0)


MAKERS = {
    "flow": lambda classes=CLASSES: Flow(network(classes)),
    "flow map": lambda classes=CLASSES: FlowMap(network(classes, times=1)),
    "diamond map": lambda classes=CLASSES: DiamondMap(network(classes, states=1, times=3)),
}
X = torch.zeros(2, 2)
LABELS = torch.tensor([0, 2])
CALLS = {
    "sample": lambda model, cond: model.sample(2, 1, cond=cond),
    "velocity": lambda model, cond: model.velocity(X, 0.5, cond=cond),
    "denoise": lambda model, cond: model.denoise(X, 0.5, cond=cond),
    "score": lambda model, cond: model.score(X, 0.5, cond=cond),
    "posterior": lambda model, cond: sampler_of(model).posterior(X, 0.5, cond=cond),
    "transition": lambda model, cond: sampler_of(model).transition(X, 0.25, 0.5, cond=cond),
    "best of n": lambda model, cond: align.best_of_n(sampler_of(model), reward, 2, batch=2, cond=cond),
}


def reward(z):
    return z.sum(1)


def sampler_of(model):
    return GlassFlow(model, 1) if isinstance(model, Flow) else model


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


# ---------------------------------------------------------------- a law that was not learned


def told(call):
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_model_that_never_learned_to_go_without_labels_says_so_once(call, make):
    model = make()
    model.metadata["label_dropout"] = 0.0
    assert told(lambda: call(model, LABELS)) == []
    said = told(lambda: call(model, None))
    assert len(said) == 1 and said[0].startswith("cond: got None, but this model was trained with label_dropout=0")
    assert told(lambda: call(model, None)) == []


@pytest.mark.parametrize("metadata", [{}, {"label_dropout": 0.1}, {"label_dropout": None}])
def test_a_model_that_learned_it_or_does_not_tell_is_silent(metadata, make):
    model = make()
    model.metadata.update(metadata)
    assert [told(lambda call=call: call(model, None)) for call in CALLS.values()] == [[]] * len(CALLS)


def test_labels_that_are_filled_in_are_labels():
    model = MAKERS["diamond map"]()
    model.metadata["label_dropout"] = 0
    assert told(lambda: Labelled(model, LABELS).posterior(X, 0.5, 3)) == []


@pytest.mark.parametrize(("scale", "count"), [(1.0, 0), (2.0, 1), (0.0, 1)])
def test_guidance_away_from_what_was_not_learned_is_told_too(scale, count):
    flow = MAKERS["flow"]()
    flow.metadata["label_dropout"] = 0
    said = told(lambda: ClassifierFree(flow, scale).sample(2, 2, cond=LABELS))
    assert [line.startswith(f"scale: got {scale:g}, but this model was trained") for line in said] == [True] * count


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_trained_flow_knows_and_its_file_too(dropout, tmp_path):
    options = {"steps": 1, "batch": 4, "progress": False, "metadata": {"note": 1}}
    flow = train_flow(torch.randn(8, 2), network(), labels=torch.arange(8) % 3, label_dropout=dropout, **options)
    assert flow.metadata == {"note": 1, "label_dropout": dropout, "steps": 1, "seed": 0}
    flow.save(tmp_path / "flow")
    for model in (flow, load(tmp_path / "flow"), copy.deepcopy(flow)):
        assert len(told(lambda model=model: model.sample(1, 1))) == (dropout == 0)


@pytest.mark.parametrize("make", [distill, distill_flow_map])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_so_does_a_map(make, dropout):
    options = {"labels": torch.arange(8) % 3, "label_dropout": dropout, "loss": "psd", "steps": 1, "batch": 4}
    model = make(Flow(network()), torch.randn(8, 2), progress=False, **options)
    assert model.metadata["label_dropout"] == dropout
    assert len(told(lambda: model.sample(1, 1))) == (dropout == 0)


def test_a_flow_without_classes_has_no_such_thing_to_know():
    flow = train_flow(torch.randn(8, 2), network(0), steps=1, batch=4, progress=False)
    assert "label_dropout" not in flow.metadata and told(lambda: flow.sample(1, 1)) == []


# ---------------------------------------------------------------- labels that are none

ENTRIES = {
    "best of n": CALLS["best of n"],
    "value": lambda model, cond: align.value(sampler_of(model), reward, X, 0.5, cond=cond),
    "gradient": lambda model, cond: align.value_gradient(sampler_of(model), reward, X, 0.5, cond=cond),
    "guided": lambda model, cond: align.value(GlassFlow(align.GuidedFlow(model, reward)), reward, X, 0.5, cond=cond),
    "sample": CALLS["sample"],
}


@pytest.mark.parametrize("call", ENTRIES.values(), ids=ENTRIES)
def test_labels_that_are_no_class_are_refused_where_samples_are_asked_for(call, make):
    expected = "expected classes from 0 to 2, or 3 for none"
    for labels, ends in (([-1, 11], "-1 to 11"), ([4, 0], "0 to 4"), ([1, -1], "-1 to 1")):
        with pytest.raises(ValueError, match=f"^cond: got labels from {ends}, {expected}$"):
            call(make(), torch.tensor(labels))
    call(make(), torch.tensor([3, 0], dtype=torch.uint8))


def test_labels_that_are_no_tensor_are_refused():
    with pytest.raises(
        ValueError, match="^cond: got list, expected a tensor of whole numbers, classes from 0 to 2, or 3"
    ):
        MAKERS["flow"]().sample(2, cond=[0, 1])


@pytest.mark.parametrize(
    ("no_label", "ending"), [(0, "from 0 to 2"), (None, "from 0 to 2"), (7, "from 0 to 2, or 7 for none")]
)
def test_the_label_of_none_may_be_another(no_label, ending):
    flow = MAKERS["flow"]()
    flow.net.classes, flow.net.no_label = CLASSES, no_label
    with pytest.raises(ValueError, match=f"^cond: got labels from 3 to 7, expected classes {ending}$"):
        flow.sample(2, 1, cond=torch.tensor([7, 3]))


def test_conditioning_of_other_networks_is_their_own_business():
    """Negative numbers, and modules that happen to have classes, among them."""

    class Own(torch.nn.Module):
        event_shape, classes = (2,), 3

        def forward(self, x, t, cond):
            return cond[:, None] - x

    flow = Flow(Own())
    assert flow.sample(2, 1, cond=torch.tensor([-7, 9])).shape == (2, 2)
    with pytest.raises(ValueError, match="made without classes and takes none"):
        MAKERS["flow"](0).sample(2, 1, cond=torch.tensor([-7, 9]))
