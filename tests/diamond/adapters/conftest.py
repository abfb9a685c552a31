"""Networks of diffusers, tiny and random, made here."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

ROWS = 3


def unet(**options):
    arguments = {"sample_size": 8, "in_channels": 2, "out_channels": 2, "block_out_channels": (8, 16),
                 "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
                 "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                 "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip
    return diffusers.UNet2DModel(**{**arguments, **options})


def transformer(**options):
    arguments = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 2, "out_channels": 4,
                 "num_layers": 2, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 5}  # fmt: skip
    return diffusers.DiTTransformer2DModel(**{**arguments, **options})


def wake(model, noise):
    """Puts noise on every weight, so that nothing is silent."""
    with torch.no_grad():
        for weights in model.parameters():
            weights += noise * torch.randn(weights.shape, dtype=weights.dtype)
    return model


def sow(make, noise=0.1, **options):
    """The model with noise on every weight, the same in every test; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return wake(make(**options), noise).eval()


MODELS = {
    "unet": (unet, {}),
    "labelled unet": (unet, {"num_class_embeds": 5}),
    "transformer": (transformer, {}),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Each kind of model in turn, in double precision, with the labels that it takes."""
    make, options = MODELS[request.param]
    return sow(make, **options).double(), None if request.param == "unet" else torch.arange(ROWS) % 5


@pytest.fixture
def sown():
    """Makes a model with noise on every weight."""
    return sow


@pytest.fixture
def makers():
    """What makes the small models, by name."""
    return {"unet": unet, "transformer": transformer}


@pytest.fixture
def states(seeded):
    """Makes noisy pictures from a seed."""
    return lambda seed=0: torch.randn(ROWS, 2, 8, 8, dtype=torch.float64, generator=seeded(seed))


@pytest.fixture
def between():
    """Makes times half a step after these: there the time told is differentiable."""

    def times(path, steps):
        ratio = torch.logit(diffusers.DDPMScheduler().alphas_cumprod.double())
        middle = torch.sigmoid((ratio[steps] + ratio[[step + 1 for step in steps]]) / 2)
        return path.time_of(middle.sqrt(), (1 - middle).sqrt())

    return times
