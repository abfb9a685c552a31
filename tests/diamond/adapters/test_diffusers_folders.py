"""Models, folders and pipelines of diffusers, read and saved; a pickle is never loaded."""

import json

import pytest
import torch

from diamond.checkpoint import load
from diamond.flow import Flow
from diamond.interpolant import Cosine

diffusers = pytest.importorskip("diffusers")


def test_a_flow_of_diffusers_is_saved_and_loaded(model, tmp_path, states):
    net, cond = model
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    flow = Flow.from_diffusers(net, scheduler=scheduler, interpolant=Cosine())
    flow.save(tmp_path / "flow.ckpt")
    loaded, x = load(tmp_path / "flow.ckpt"), states()
    assert torch.equal(loaded.velocity(x, 0.3, cond=cond), flow.velocity(x, 0.3, cond=cond))


@pytest.mark.parametrize("make", ["unet", "transformer"])
def test_a_folder_of_a_model_is_read(make, tmp_path, makers, sown, states):
    net, x = sown(makers[make]), states().float()
    net.save_pretrained(tmp_path / "model")
    flow = Flow.from_diffusers(tmp_path / "model")
    assert torch.equal(flow.velocity(x, 0.3), Flow.from_diffusers(net).velocity(x, 0.3))
    assert flow.event_shape == (2, 8, 8)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("scheduler", "prediction"),
    [(lambda: diffusers.DDIMScheduler(beta_end=0.01, prediction_type="v_prediction"), "v_prediction"),
     (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), "flow")],
)  # fmt: skip
def test_a_pipeline_and_its_folder_are_read_with_their_scheduler(
    scheduler, prediction, flat, tmp_path, sown, makers, states
):
    net, x, scheduler = sown(makers["unet"]), states().float(), scheduler()
    net.save_pretrained(tmp_path / ("." if flat else "unet"))
    scheduler.save_pretrained(tmp_path / ("." if flat else "scheduler"))
    expected = Flow.from_diffusers(net, scheduler=scheduler)
    flow = Flow.from_diffusers(str(tmp_path))
    assert flow.net.path.prediction == expected.net.path.prediction == prediction
    assert torch.equal(flow.velocity(x, 0.3), expected.velocity(x, 0.3))
    if prediction == "v_prediction":
        pipeline = diffusers.DDIMPipeline(unet=net, scheduler=scheduler)
        pipeline.scheduler.register_to_config(prediction_type="v_prediction")
        assert torch.equal(Flow.from_diffusers(pipeline).velocity(x, 0.3), expected.velocity(x, 0.3))


def test_a_pickle_in_a_folder_is_never_loaded(tmp_path, sown, makers):
    net = sown(makers["unet"])
    net.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(net.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="its weights cannot be read, expected a whole safetensors file"):
        Flow.from_diffusers(tmp_path)


def test_folders_that_hold_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        Flow.from_diffusers(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="config.json: there is no such file"):
        Flow.from_diffusers(tmp_path)
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(ValueError, match="config.json: it is no JSON"):
        Flow.from_diffusers(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ValueError, match="config.json: got 'AutoencoderKL', expected one of UNet2DModel"):
        Flow.from_diffusers(tmp_path)
