"""Bad input gets one sentence that says which argument, what came and what was expected."""

import shutil
import sys

import huggingface_hub
import pytest
import torch

import align
import diamond

from align.rewards import Brightness, Decoded
from diamond.adapters.pipelines import FAMILIES, LatentNetwork, load_pipeline
from examples.tiny_pipelines import CALLS, NOISE

NAME = "stable-diffusion"


@pytest.fixture
def offline(monkeypatch):
    """No hub, as when `HF_HUB_OFFLINE` is set."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(fresh, tmp_path):
    fresh(NAME).save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipeline_that_is_not_supported(loaded):
    with pytest.raises(ValueError, match="^pipe: got a NoneType, expected one of") as caught:
        diamond.from_pipeline(None, "a cat")
    message = str(caught.value)
    assert all(family in message for family in FAMILIES) and "network=" in message and "LatentNetwork" in message
    assert "\n" not in message

    class StrangePipeline:
        pass

    with pytest.raises(ValueError, match="^pipe: got a StrangePipeline"):
        diamond.from_pipeline(StrangePipeline(), "a cat")


def test_an_adapter_of_ones_own(loaded, seeded, close):
    """For a class of pipelines that is not known: a subclass of four methods, as the message says."""
    from diamond.adapters.pipelines.stable_diffusion import StableDiffusionNetwork

    class Renamed(type(loaded(NAME))):
        pass

    pipe = Renamed(**loaded(NAME).components, requires_safety_checker=False)
    with pytest.raises(ValueError, match="^pipe: got a Renamed"):
        diamond.from_pipeline(pipe, "a cat")
    found = diamond.from_pipeline(pipe, "a cat", height=64, width=64, network=StableDiffusionNetwork)
    expected = diamond.from_pipeline(loaded(NAME), "a cat", height=64, width=64)
    close(found.sample(1, 2, generator=seeded(0)), expected.sample(1, 2, generator=seeded(0)))
    assert LatentNetwork.__abstractmethods__ == {"_shape", "_embed", "_ask", "_grid"}


@pytest.mark.parametrize("package", ["transformers", "diffusers"])
def test_a_missing_extra(package, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'diamond-maps\[diffusers\]'"):
        diamond.from_pipeline(folder, "a cat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, r"^prompt: got \[\], expected a string, or several"),
        ({"prompt": 3}, "^prompt: got 3, expected a string"),
        ({"prompt": ["a", None]}, "^prompt: got .*None"),
        ({"negative_prompt": ["a", "b", "c"]}, "^negative_prompt: got 3 for 1 prompts"),
        ({"prompt": ["a", "b"], "negative_prompt": ["x", "y", "z"]}, "^negative_prompt: got 3 for 2 prompts"),
        ({"negative_prompt": []}, r"^negative_prompt: got \[\]"),
        ({"height": 60}, "^height: got 60, expected a multiple of 8 pixels"),
        ({"width": 64.0}, "^width: got 64.0, expected a multiple of 8"),
        ({"height": 0}, "^height: got 0"),
        ({"width": True}, "^width: got True"),
        ({"kind": "map"}, "^kind: got 'map', expected one of flow, few-step, flow-map"),
        ({"kind": "flow-map"}, "^kind: got 'flow-map' for a StableDiffusionPipeline"),
        ({"guidance_scale": float("nan")}, "^guidance_scale: got nan, expected a finite number"),
        ({"guidance_scale": "7"}, "^guidance_scale: got '7'"),
        ({"chunk": 0}, "^chunk: got 0"),
        ({"decode_chunk": 0}, "^decode_chunk: got 0"),
        ({"decode_chunk": -1, "kind": "few-step"}, "^decode_chunk: got -1"),
        ({"glass_steps": 0}, "^glass_steps: got 0"),
        ({"snr": 0.5, "kind": "few-step"}, "^snr: got 0.5"),
        ({"snr": 2.5}, "^snr: got 2.5 for kind='flow', expected it for 'few-step' or 'flow-map' only"),
        ({"proposals": 4}, "^proposals: got 4 for kind='flow'"),
        (
            {"glass_steps": 4, "kind": "few-step"},
            "^glass_steps: got 4 for kind='few-step', expected it for 'flow' only",
        ),
        ({"guidence_scale": 3}, "^guidence_scale: got 3, which is no argument of from_pipeline, nor one of StableDiff"),
        ({"num_images_per_prompt": 2}, "^num_images_per_prompt: got 2, which is no argument"),
        ({"device": "cpu"}, "^device: got 'cpu', which is no argument"),
        ({"negative_prompt_embeds": 0, "guidance_scale": 1.0}, "^negative_prompt_embeds: got 0, but without guidance"),
        (
            {"prompt": ["a", "b"], "prompt_embeds": torch.zeros(1, 77, 32)},
            "^prompt: got 1 rows of words from StableDiff",
        ),
    ],
)
def test_arguments_that_do_not_fit(options, message, loaded):
    with pytest.raises(ValueError, match=message) as caught:
        diamond.from_pipeline(loaded(NAME), **{"prompt": "a cat", "height": 64, "width": 64, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["flux", "stable-diffusion-3", "stable-diffusion-xl-turbo"])
def test_second_prompts_are_one_for_all_or_one_each(name, model_of):
    with pytest.raises(ValueError, match="^prompt_2: got 3 for 2 prompts, expected one for all, or 2"):
        model_of(name, ["a cat", "a dog"], prompt_2=["x", "y", "z"])


def test_sides_of_flux_are_multiples_of_its_patches(loaded):
    with pytest.raises(ValueError, match="^width: got 72, expected a multiple of 16 pixels"):
        diamond.from_pipeline(loaded("flux"), "a cat", height=64, width=72, **CALLS["flux"])


def test_prompt_numbers(model_of):
    model = model_of(NAME, ["a cat", "a dog"])
    x = torch.zeros(3, *model.event_shape)
    for cond, message in (
        (None, "^cond: got None for a model of 2 prompts, expected .*: pass cond=model.cond and batch=2"),
        ("a cat", "^cond: got str, expected the numbers of prompts, whole numbers \\(3,\\) from 0 to 1"),
        (torch.tensor([0, 1]), r"^cond: got torch.int64 \(2,\), expected the numbers of prompts"),
        (torch.zeros(3), r"^cond: got torch.float32 \(3,\)"),
        (torch.tensor([True, False, True]), r"^cond: got torch.bool \(3,\)"),
        (torch.tensor([0, 1, 2]), "^cond: got numbers from 0 to 2, expected .* from 0 to 1"),
        (torch.tensor([0, -1, 1]), "^cond: got numbers from -1 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.velocity(x, 0.5, cond=cond)
        with pytest.raises(ValueError, match=message):
            model.prompts_of(cond, 3)
    assert model.prompts_of(torch.tensor([1, 0, 1]), 3) == ["a dog", "a cat", "a dog"]
    assert model_of(NAME).prompts_of(None, 2) == ["a cat"] * 2


def test_a_batch_that_does_not_match_the_prompts(model_of):
    model = model_of(NAME, ["a cat", "a dog"], glass_steps=1)
    reward = Decoded(Brightness(), model)
    with pytest.raises(ValueError, match=r"^cond: got shape \(2,\), expected leading dimension batch=3"):
        align.best_of_n(model, reward, 2, batch=3, cond=model.cond)
    with pytest.raises(ValueError, match="^cond: got None for a model of 2 prompts"):
        align.best_of_n(model, reward, 2, batch=2)


@pytest.mark.parametrize("source", ["no/such/folder/here", "nobody-at-all/nothing-here", ""])
def test_a_folder_or_id_that_is_not_there(source, offline):
    with pytest.raises(FileNotFoundError, match=f"^{source}: it cannot be read as a pipeline, expected a folder"):
        diamond.from_pipeline(source, "a cat")


def test_of_what_diffusers_says_only_the_first_sentence_is_told(offline):
    with pytest.raises(FileNotFoundError) as caught:
        diamond.from_pipeline("nobody-at-all/nothing-here", "a cat")
    assert str(caught.value).endswith("is not fully cached locally") and "local_files_only" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_truncated_weights_file(part, folder):
    whole = (folder / part).read_bytes()
    for size in (0, 1000, len(whole) - 50):
        (folder / part).write_bytes(whole[:size])
        with pytest.raises(FileNotFoundError, match="it cannot be read as a pipeline") as caught:
            load_pipeline(folder)
        assert "\n" not in str(caught.value)


def test_folders_that_are_no_pipelines(folder, tmp_path):
    for text in ("{", "{}", '{"_class_name": "NoSuchPipeline", "_diffusers_version": "0.30"}'):
        (folder / "model_index.json").write_text(text)
        with pytest.raises(FileNotFoundError, match="it cannot be read as a pipeline"):
            diamond.from_pipeline(folder, "a cat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="it cannot be read as a pipeline"):
        diamond.from_pipeline(tmp_path / "empty", "a cat")


def test_pickles_are_not_read(folder):
    """A folder whose weights are pickles only is refused."""
    shutil.move(folder / "unet/diffusion_pytorch_model.safetensors", folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="it cannot be read as a pipeline"):
        diamond.from_pipeline(folder, "a cat")


def test_reading_a_pipeline_leaves_the_global_random_state(folder):
    before = torch.random.get_rng_state()
    load_pipeline(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_schedulers_that_tell_their_networks_something_else(fresh, model_of):
    """Noise levels in place of steps, or steps that are not those of their noise levels."""
    import diffusers

    pipe = fresh(NAME)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(
        timestep_type="continuous", prediction_type="v_prediction", sigma_min=0.002, sigma_max=700.0, **NOISE
    )
    with pytest.raises(ValueError, match="^scheduler: got a EulerDiscreteScheduler of timestep_type='continuous'"):
        model_of(NAME, pipe=pipe)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(interpolation_type="log_linear", **NOISE)
    model = model_of(NAME, pipe=pipe)
    for call in (model.times, lambda steps: model.sample(1, steps)):
        with pytest.raises(ValueError, match="^scheduler: got a EulerDiscreteScheduler of interpolation_type='log_li"):
            call(3)


def test_schedulers_without_levels_are_refused(fresh, model_of):
    import diffusers

    pipe = fresh("flux")
    pipe.scheduler = diffusers.DDPMScheduler()
    with pytest.raises(ValueError, match="^scheduler: got a DDPMScheduler, expected a flow-matching one"):
        model_of("flux", pipe=pipe).sample(1, 2)
    for scheduler, message in (
        (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "whose noise levels do not fall, expected"),
        (diffusers.FlowMatchHeunDiscreteScheduler(), "which takes no noise levels, expected"),
    ):
        pipe.scheduler = scheduler
        with pytest.raises(ValueError, match=f"^scheduler: got a {type(scheduler).__name__}.* {message}"):
            model_of("flux", pipe=pipe).times(4)
    with pytest.raises(ValueError, match="^steps: got 0"):
        model_of("flux").sample(1, 0)
    with pytest.raises(ValueError, match="^n: got 0"):
        model_of("flux").sample(0, 2)
