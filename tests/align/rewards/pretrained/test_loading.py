"""Models that cannot be had: one sentence that names them, and what to do."""

import subprocess
import sys

import pytest
import torch

from align.rewards import CLIPScore, HPSv2, ImageReward, LAIONAesthetic, composite
from align.rewards.pretrained.loading import find, read_json, read_processor, read_tensors, readable

REWARDS = (CLIPScore, HPSv2, ImageReward, LAIONAesthetic)


def test_rewards_are_imported_without_transformers():
    code = "import sys, align.rewards, align.rewards.pretrained; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("kind", REWARDS)
def test_a_missing_package_is_told_with_the_line_that_installs_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"^transformers: .*; pip install 'diamond-maps\[rewards\]'$"):
        kind()


@pytest.mark.parametrize("kind", REWARDS)
def test_a_path_to_nothing_is_told(kind, tmp_path):
    for name in (tmp_path / "nothing", f"{tmp_path}/nothing", "./nothing", "~/no/thing", "nothing", "no.safetensors"):
        with pytest.raises(
            FileNotFoundError, match=f"^{name}: there is no such folder or file, expected one, or the hub"
        ):
            kind(name, local_files_only=True)


@pytest.mark.parametrize("kind", REWARDS)
def test_a_repository_that_was_not_fetched_is_told(kind):
    with pytest.raises(FileNotFoundError, match="^nobody/nothing: there is no such folder, .*`hf download`"):
        kind("nobody/nothing", local_files_only=True)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("GatedRepoError", ValueError, "its repository is gated, expected one .*; accept its terms .*`hf auth login`"),
        ("RepositoryNotFoundError", FileNotFoundError, "there is no such folder and the hub has no such repository"),
        ("ConnectError", FileNotFoundError, "there is no such folder, and not all that is needed .*check its spelling"),
        ("SomethingElse", ValueError, r"it cannot be loaded, expected a model's configuration .*\(one two\)"),
    ],
)
def test_why_the_hub_gives_nothing_is_told(error, kind, message, monkeypatch):
    """The hub's errors, by name: as they are, and as the cause of what transformers makes of them."""
    raised = type(error, (Exception,), {})

    def hf_hub_download(*_, **__):
        raise raised("one\n two")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    with pytest.raises(kind, match=f"^some/model: {message}"):
        find("some/model", "config.json")
    with pytest.raises(kind, match=f"^some/model: {message}"), readable("some/model"):
        try:
            raise raised("one two")
        except Exception as cause:
            raise (OSError("one two") if error != "SomethingElse" else ValueError("one two")) from cause


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "HPS_v2.1_compressed.pt"
    torch.save({"state_dict": {}}, path)
    for kind in (HPSv2, ImageReward):
        with pytest.raises(ValueError, match="got a pickle, which may run any code and is never loaded"):
            kind(path)
    with pytest.raises(ValueError, match="got a pickle"):
        read_tensors("~/sac+logos+ava1-l14-linearMSE.pth")


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="bad.safetensors: it cannot be read, expected a safetensors file"):
        read_tensors(tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: it holds no model.safetensors, expected one"):
        read_tensors(tmp_path)
    for text, message in (("{", "it is no JSON"), ("[1]", "got a list, expected a configuration")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="got a model of type 'siglip', expected 'clip'"):
        CLIPScore(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match=f"^{tmp_path}: it cannot be loaded"):
        CLIPScore(tmp_path)


def test_processors_are_found_in_either_file(tmp_path):
    assert read_processor(tmp_path) is None
    (tmp_path / "processor_config.json").write_text('{"image_processor": {"size": 8}}')
    assert read_processor(tmp_path) == {"size": 8}
    (tmp_path / "preprocessor_config.json").write_text('{"size": 9}')
    assert read_processor(tmp_path) == {"size": 9}


def test_unknown_parts_of_the_composite_are_refused():
    with pytest.raises(ValueError, match="^part: got 'hpsv2', expected one of imagereward, hps, pickscore, clip"):
        composite(weights={"hpsv2": 1.0})
