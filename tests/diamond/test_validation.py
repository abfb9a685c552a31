"""Bad input gets one clear sentence: which argument, what came, what was expected."""

import pytest
import torch

from diamond.diamond_map import DiamondMap
from diamond.flow import Flow
from diamond.flow_map import FlowMap
from diamond.glass import GlassFlow
from diamond.interpolant import interpolant_named
from diamond.mixture import GaussianMixtureFlow
from diamond.nets import ResidualMLP, Transformer
from diamond.randomness import normal
from diamond.validation import as_times, check_choice, check_later, check_positive, check_state

NAN = float("nan")
X = torch.zeros(4, 2)


def refuses(name, call, *args, **kwargs):
    """Tests that a call is refused with one sentence about the argument `name`."""
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    sentence = str(caught.value)
    assert sentence.startswith(f"{name}: got "), sentence
    assert "expected" in sentence
    assert "\n" not in sentence
    return sentence


def mixture(**changes):
    fields = {"weights": [0.3, 0.7], "means": [[0.0, 1.0], [1.0, 0.0]], "covariances": [0.5, 0.5]}
    return GaussianMixtureFlow(**{name: torch.tensor(value) for name, value in (fields | changes).items()})


MODELS = {
    "mixture": mixture,
    "flow": lambda: Flow(ResidualMLP((2,), width=4, depth=1)),
    "glass flow": lambda: GlassFlow(Flow(ResidualMLP((2,), width=4, depth=1)), steps=2),
    "flow map": lambda: FlowMap(ResidualMLP((2,), width=4, depth=1, times=1)),
    "diamond map": lambda: DiamondMap(ResidualMLP((2,), width=4, depth=1, states=1, times=3)),
}
FACES = ["velocity", "denoise", "score", "posterior", "log_prob"]
STATES = {
    "an event too wide": torch.zeros(4, 3),
    "an axis too many": torch.zeros(4, 2, 1),
    "no batch axis": torch.zeros(2),
    "whole numbers": torch.zeros(4, 2).long(),
    "a list": [[0.0, 0.0]],
}
TIMES = {
    "before the start": -0.1,
    "after the end": 1.1,
    "no number": NAN,
    "infinite": float("inf"),
    "too few": torch.full((3,), 0.5),
    "too many axes": torch.full((4, 1), 0.5),
    "one bad row": torch.tensor([0.1, 0.5, 1.5, 0.2]),
    "one row without a number": torch.tensor([0.1, 0.5, NAN, 0.2]),
    "a name": "half",
    "none": None,
    "rows of unequal length": [[0.1, 0.2], [0.3]],
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def faces(model):
    """The methods of a model that take a state and a time."""
    return [getattr(model, name) for name in FACES if hasattr(model, name)]


# ---------------------------------------------------------------- states and times


@pytest.mark.parametrize("bad", STATES)
def test_a_bad_state_is_refused_by_every_method(model, faces, bad):
    for face in faces:
        assert "(B, 2)" in refuses("x_t", face, STATES[bad], 0.5)
    if hasattr(model, "transition"):
        refuses("x_t", model.transition, STATES[bad], 0.2, 0.5)
        refuses("x_t", model.transition, STATES[bad], 0.2, 0.5, rho=0.1)


@pytest.mark.parametrize("bad", TIMES)
def test_a_bad_time_is_refused_by_every_method(model, faces, bad):
    for face in faces:
        refuses("t", face, X, TIMES[bad])
    if hasattr(model, "transition"):
        refuses("t", model.transition, X, TIMES[bad], 1.0)
        refuses("t_next", model.transition, X, 0.05, TIMES[bad])


def test_good_times_of_any_kind_are_taken(faces):
    for face in faces:
        for t in (0, 1, 0.5, torch.tensor(0.5), torch.full((4,), 0.5), torch.full((4,), 0.5).double(), torch.tensor(1)):
            assert len(face(X, t)) in (1, 4)


@pytest.mark.parametrize("t_next", [0.5, 0.4, torch.tensor([0.6, 0.7, 0.5, 0.8])])
def test_a_transition_backwards_or_nowhere_is_refused(model, t_next):
    if hasattr(model, "transition"):
        assert "where t is 0.5, expected a later time" in refuses("t_next", model.transition, X, 0.5, t_next)


@pytest.mark.parametrize("rho", [1.5, -1.5, NAN, torch.tensor([0.1, 0.2, 0.3, 1.2])])
def test_a_correlation_outside_its_range_is_refused(model, rho):
    if hasattr(model, "transition"):
        refuses("rho", model.transition, X, 0.2, 0.5, rho=rho)


@pytest.mark.parametrize("shape", [(3,), (4, 1), (0,)])
def test_correlations_of_other_rows_are_refused(model, shape):
    if hasattr(model, "transition"):
        assert f"got shape {shape}" in refuses("rho", model.transition, X, 0.2, 0.5, rho=torch.zeros(shape))


def test_times_keep_their_precision():
    single, double = torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64)
    assert as_times(0.7, double).tolist() == 3 * [0.7]
    assert as_times(0.7, single).dtype == torch.float32
    assert as_times(0.7, single.bfloat16()).dtype == torch.float32
    assert as_times(torch.tensor(0.7, dtype=torch.float64), double).tolist() == 3 * [0.7]
    times = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert as_times(times, double).grad_fn is not None or as_times(times, double) is times


# ---------------------------------------------------------------- counts and names


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True])
def test_a_bad_count_is_refused(model, bad):
    refuses("n", model.prior, bad)
    if hasattr(model, "posterior"):
        refuses("n", model.posterior, X, 0.5, bad)
    if hasattr(model, "sample"):
        refuses("n", model.sample, bad)
        if not isinstance(model, GaussianMixtureFlow):
            refuses("steps", model.sample, 2, bad)
    if isinstance(model, DiamondMap):
        refuses("steps", model.posterior, X, 0.5, steps=bad)
    if isinstance(model, GlassFlow):
        refuses("steps", GlassFlow, model.flow, bad)


def test_no_method_computes_before_it_has_looked_at_its_counts(model):
    """A refusal costs nothing."""
    if hasattr(model, "posterior"):
        refuses("n", model.posterior, X, 0.5, 0)
    if isinstance(model, DiamondMap):
        refuses("steps", model.posterior, X, 0.5, steps=0)
    assert model.nfe == 0


def test_flow_refuses_options_that_do_not_exist():
    flow = MODELS["flow"]()
    assert "euler, heun" in refuses("solver", flow.sample, 2, solver="rk4")
    for eta in (-0.1, 1.1, NAN):
        refuses("eta", flow.sample, 2, eta=eta)
    refuses("solver", flow.sample, 2, solver="heun", eta=0.5)
    refuses("solver", flow.sample, 2, solver="rk4", eta=0.5)
    assert "velocity, denoiser, noise" in refuses("prediction", Flow, ResidualMLP((2,)), prediction="score")


@pytest.mark.parametrize("kind", [Flow, FlowMap, DiamondMap])
def test_a_network_that_does_not_tell_its_shape_needs_one(kind):
    refuses("event_shape", kind, torch.nn.Linear(2, 2))
    assert kind(torch.nn.Linear(2, 2), event_shape=(2,)).event_shape == (2,)
    assert kind(ResidualMLP((2, 3))).event_shape == (2, 3)


def test_glass_flow_refuses_what_is_no_flow_and_unknown_solvers():
    refuses("flow", GlassFlow, torch.nn.Linear(2, 2))
    assert "euler, heun" in refuses("solver", GlassFlow, MODELS["flow"](), solver="rk4")


def test_paths_and_networks_have_names_and_sizes_that_fit():
    assert "cosine, linear" in refuses("interpolant", interpolant_named, "cubic")
    refuses("event_shape", Transformer, (1, 5, 4), patch=2)
    refuses("event_shape", Transformer, (4, 4), patch=2)
    refuses("heads", Transformer, (1, 4, 4), width=10, heads=4)
    refuses("heads", Transformer, (1, 4, 4), heads=0)
    refuses("width", ResidualMLP, (3,), width=0)
    refuses("depth", ResidualMLP, (3,), depth=-1)
    refuses("patch", Transformer, (1, 4, 4), patch=0)


def test_generators_must_share_the_rows(model):
    generators = [torch.Generator() for _ in range(3)]
    refuses("generator", normal, (4, 2), generators)
    refuses("generator", model.prior, 4, generator=generators)
    if hasattr(model, "posterior") and not isinstance(model, FlowMap):
        refuses("generator", model.posterior, X, 0.5, generator=generators)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("bad", STATES)
def test_maps_refuse_bad_states(bad):
    refuses("x_bar", MODELS["diamond map"](), STATES[bad], 0.1, 0.5, X, 0.5)
    refuses("x_t", MODELS["diamond map"](), X, 0.1, 0.5, STATES[bad], 0.5)
    refuses("x", MODELS["flow map"](), STATES[bad], 0.1, 0.5)


def test_a_diamond_map_needs_as_many_inner_as_outer_states():
    refuses("x_t", MODELS["diamond map"](), X, 0.1, 0.5, X[:3], 0.5)


@pytest.mark.parametrize("bad", TIMES)
def test_maps_refuse_bad_times(bad):
    diamond, flow_map = MODELS["diamond map"](), MODELS["flow map"]()
    refuses("s", diamond, X, TIMES[bad], 1.0, X, 0.5)
    refuses("r", diamond, X, 0.05, TIMES[bad], X, 0.5)
    refuses("t", diamond, X, 0.1, 0.5, X, TIMES[bad])
    refuses("t", flow_map, X, TIMES[bad], 1.0)
    refuses("r", flow_map, X, 0.05, TIMES[bad])


@pytest.mark.parametrize("r", [0.4, torch.tensor([0.6, 0.7, 0.4, 0.8])])
def test_maps_refuse_to_go_backwards(r):
    assert "expected s <= r" in refuses("r", MODELS["diamond map"](), X, 0.5, r, X, 0.5)
    assert "expected t <= r" in refuses("r", MODELS["flow map"](), X, 0.5, r)


# ---------------------------------------------------------------- mixtures


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"weights": [0.3, 0.3, 0.4]}, "weights, means"),
        ({"weights": 0.3}, "weights, means"),
        ({"means": [0.0, 1.0]}, "weights, means"),
        ({"weights": [], "means": [[]], "covariances": []}, "weights, means"),
        ({"means": [[], []]}, "weights, means"),
        ({"weights": [0.3, -0.7]}, "weights"),
        ({"weights": [0.0, 1.0]}, "weights"),
        ({"weights": [NAN, 1.0]}, "weights"),
        ({"weights": [float("inf"), 1.0]}, "weights"),
        ({"means": [[0.0, NAN], [1.0, 0.0]]}, "means"),
        ({"covariances": [0.5, 0.5, 0.5]}, "covariances"),
        ({"covariances": 0.5}, "covariances"),
        ({"covariances": [[0.5, 0.5], [0.5, 0.5]]}, "covariances"),
        ({"covariances": [0.5, -0.5]}, "covariances"),
        ({"covariances": [0.5, NAN]}, "covariances"),
        ({"covariances": 2 * [[[1.0, 2.0], [2.0, 1.0]]]}, "covariances"),
        ({"covariances": 2 * [[[1.0, 0.5], [0.0, 1.0]]]}, "covariances"),
        ({"covariances": 2 * [[[1.0, NAN], [NAN, 1.0]]]}, "covariances"),
    ],
)
def test_a_mixture_that_is_none_is_refused(changes, names):
    refuses(names, mixture, **changes)


def test_a_tilt_must_fit_and_leave_a_law():
    model = mixture()
    for call in (model.tilt, model.log_normaliser, lambda linear: model.value(X, 0.5, linear)):
        refuses("linear", call, torch.zeros(3))
        refuses("linear", call, torch.tensor(1.0))
        refuses("linear", call, torch.tensor([NAN, 1.0]))
    for precision in (-2.0, -3.0, NAN):  # the data's variances are 0.5: beyond -2 the reward outgrows the density
        refuses("precision", model.tilt, torch.zeros(2), precision)
        refuses("precision", model.log_normaliser, torch.zeros(2), precision)
    assert model.log_normaliser(torch.zeros(2), -1.9).isfinite()
    assert model.value(X, 0.9, torch.zeros(2), -2.0).isfinite().all()


# ---------------------------------------------------------------- the checks themselves


def test_sentences_tell_what_came():
    assert refuses("x_t", check_state, torch.zeros(4, 3), (2,)) == (
        "x_t: got shape (4, 3), expected a floating tensor of shape (B, 2)"
    )
    assert refuses("t", as_times, 1.5, X) == "t: got times from 1.5 to 1.5, expected times in [0, 1]"
    assert refuses("t_next", check_later, torch.tensor([0.1, 0.5]), torch.tensor([0.2, 0.4])) == (
        "t_next: got 0.4 where t is 0.5, expected a later time"
    )
    assert refuses("n", check_positive, "n", 0) == "n: got 0, expected a whole number of at least 1"
    assert refuses("solver", check_choice, "solver", "rk4", ("euler", "heun")) == (
        "solver: got 'rk4', expected one of euler, heun"
    )
