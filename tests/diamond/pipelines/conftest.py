"""What the tests of pipelines share: tiny random pipelines of every family, made once, saved and loaded again."""

import functools
import sys

from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:  # the examples are not installed
    sys.path.insert(0, str(ROOT))

import diamond  # noqa: E402

from diamond.adapters.pipelines import load_pipeline  # noqa: E402
from examples.tiny_pipelines import CALLS, PIPELINES, tiny_pipeline  # noqa: E402


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    """The pipeline of a name, saved by its own `save_pretrained` and read by `load_pipeline`; one for all tests, which
    leave it as it is."""

    @functools.cache
    def load(name):
        folder = tmp_path_factory.mktemp(name)
        tiny_pipeline(name).save_pretrained(folder)
        pipe = load_pipeline(folder)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


@pytest.fixture(params=PIPELINES)
def name(request):
    """Each family in turn."""
    return request.param


@pytest.fixture
def fresh():
    """A pipeline of one's own, which may be changed."""
    return tiny_pipeline


@pytest.fixture
def model_of(loaded):
    """The model of a family, or of a `pipe` of it, on images of 64 by 64 pixels; with `cheap` inner steps for a draw, or two
    proposals where it is a map."""

    def make(name, prompt="a cat", pipe=None, cheap=None, **options):
        if cheap is not None:
            options |= {"proposals": 2} if name == "sana-sprint" else {"glass_steps": cheap}
        pipe = loaded(name) if pipe is None else pipe
        return diamond.from_pipeline(pipe, prompt, **{"height": 64, "width": 64, **CALLS[name], **options})

    return make


@pytest.fixture
def own_call():
    """What a pipeline itself makes of prompts: latents, images in [0, 1] ("pt") or pictures ("pil")."""

    def call(pipe, name, prompts, steps, output_type="latent", **options):
        size = {"use_resolution_binning": False} if name.startswith("sana") else {}
        options = {"height": 64, "width": 64, **CALLS[name], **size, **options}
        out = pipe(prompt=prompts, num_inference_steps=steps, output_type=output_type, **options).images
        if name != "flux" or output_type != "latent":
            return out
        return pipe._unpack_latents(out, options["height"], options["width"], pipe.vae_scale_factor)

    return call


@pytest.fixture
def close():
    """Tests that two tensors agree, relative to the largest entry, to the rounding of a network in single precision."""

    def check(found, expected, limit=1e-5):
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=limit * size)

    return check
