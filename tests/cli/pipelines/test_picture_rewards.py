"""Rewards of pictures as written on a command line."""

import functools
import json
import sys
import threading

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from align import rewards
from align.rewards import vlm_judge
from diamond.cli.picture_rewards import NAMES, check_reward, picture_reward


@pytest.fixture
def images():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP network of random weights, saved whole."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from diamond.randomness import seeded
    from examples.tiny_pipelines import clip_tokenizer

    tokenizer = clip_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    image = {**sizes, "image_size": 24, "patch_size": 8}
    folder = tmp_path_factory.mktemp("networks") / "tiny-clip"
    with seeded(0):
        CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=16)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kind = getattr(sys.modules["transformers"], "CLIPImageProcessorPil", CLIPImageProcessor)
    kind(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


def test_a_name_alone_is_the_reward_itself(images):
    assert type(picture_reward("symmetry")) is rewards.Symmetry
    assert torch.equal(picture_reward("mean-colour:orange")(images), rewards.MeanColour("orange")(images))


def test_a_sum_tells_its_parts(images):
    reward = picture_reward("2.0*brightness+symmetry+0.5*brightness + -1e-2*jpeg-size")
    parts = reward.components(images)
    assert list(parts) == ["brightness", "symmetry", "jpeg-size"]
    assert torch.equal(parts["symmetry"], rewards.Symmetry()(images))
    expected = 2.5 * parts["brightness"] + parts["symmetry"] - 0.01 * parts["jpeg-size"]
    assert torch.allclose(reward(images), expected)
    assert torch.allclose(picture_reward("3*contrast")(images), 3 * rewards.Contrast()(images))


def test_callables_with_and_without_prompts(images, tmp_path, monkeypatch):
    (tmp_path / "prompted_rewards.py").write_text(
        "def length(images, prompts):\n    return images.mean((1, 2, 3)) * 0 + images.new_tensor([len(p) for p in prompts])\n"
        "def mean(images):\n    return images.mean((1, 2, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reward = picture_reward("prompted_rewards:length+2*prompted_rewards:mean")
    expected = torch.tensor([1.0, 2.0, 3.0]) + 2 * images.mean((1, 2, 3))
    assert torch.allclose(reward(images, ["a", "bb", "ccc"]), expected)


@pytest.mark.parametrize(("name", "kind"), [("clip", "CLIPScore"), ("pick", "PickScore"), ("hps", "HPSv2")])
def test_networks_by_folder(name, kind, clip_folder, images):
    prompts = ["a cat", "a dog", "x"]
    found = picture_reward(f"{name}:{clip_folder}")
    more = {"processor": clip_folder} if name == "hps" else {}
    expected = getattr(rewards.pretrained, kind)(clip_folder, **more)
    assert torch.equal(found(images, prompts), expected(images, prompts))
    both = picture_reward(f"0.5*{name}:{clip_folder}+brightness")
    assert torch.allclose(both(images, prompts), 0.5 * expected(images, prompts) + rewards.Brightness()(images))
    assert list(both.components(images, prompts)) == [f"{name}:{clip_folder}", "brightness"]


def test_a_network_on_the_command_line(clip_folder, pictures, record):
    usual = "--method guide --particles 2 --steps 2 --mc 1 --glass-steps 1 --height 32 --width 32 -q"
    pictures(f"--prompt 'a cat' --reward clip:{clip_folder}+brightness", usual=usual)
    figures = record("out/00000-a-cat/seed-0.json")
    assert list(figures["parts"]) == [f"clip:{clip_folder}", "brightness"] and figures["nfe_backward"] > 0
    assert figures["reward"] == pytest.approx(sum(figures["parts"].values()), abs=1e-4)


def test_where_networks_come_from(monkeypatch, tmp_path):
    """The arguments that each class gets; the classes are tested where they live."""
    made = []
    pretrained = pytest.importorskip("align.rewards.pretrained")
    for kind in ("ImageReward", "LAIONAesthetic", "HPSv2"):
        monkeypatch.setattr(
            pretrained, kind, lambda kind=kind, **given: made.append((kind, given)) or rewards.Symmetry()
        )
    monkeypatch.setattr(
        pretrained, "composite", lambda **given: made.append(("composite", given)) or rewards.Symmetry()
    )
    whole = tmp_path / "whole"
    (whole / "clip").mkdir(parents=True)
    (whole / "tokenizer_config.json").write_text("{}")
    cases = {
        "image-reward": {},
        "image-reward:a/b": {"model": "a/b"},
        f"image-reward:{whole}": {"model": str(whole), "tokenizer": str(whole)},
        f"hps:{whole}": {"model": str(whole), "processor": str(whole)},
        "aesthetic:head.safetensors": {"head": "head.safetensors"},
        f"aesthetic:{whole}": {"head": str(whole), "model": whole / "clip"},
        "composite": {"models": {}},
    }
    for text, expected in cases.items():
        picture_reward(text, "cpu", "meta")
        assert made.pop()[1] == {**expected, "device": "meta"}, text
    picture_reward(f"composite:{tmp_path}")
    models = made.pop()[1]["models"]
    assert models == {part: {"model": str(tmp_path / part)} for part in ("imagereward", "hps", "pickscore", "clip")}


@pytest.fixture
def judge():
    """A service that gives every picture a 7, until `alive` is emptied; `asked` counts."""

    class Answer(BaseHTTPRequestHandler):
        alive, asked = [True], []

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.asked.append(body)
            answer = json.dumps({"choices": [{"message": {"content": "7"}}]}).encode()
            self.send_response(200 if self.alive else 503)
            self.end_headers()
            self.wfile.write(answer if self.alive else b"gone")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", Answer
    server.shutdown()
    server.server_close()


def test_a_judge_on_the_command_line_and_when_it_is_gone(judge, pictures, here, files, record, monkeypatch):
    monkeypatch.setattr(vlm_judge, "VLMJudge", functools.partial(vlm_judge.VLMJudge, retries=0))
    url, service = judge
    usual = "--method base --steps 1 --height 32 --width 32 -q"
    line = f"--prompt 'a cat' --reward judge:sees@{url}"
    pictures(line, usual=usual)
    assert record("out/00000-a-cat/seed-0.json")["reward"] == 7 and service.asked[0]["model"] == "sees"
    assert "a cat" in json.dumps(service.asked[0]["messages"])
    service.alive.clear()
    said = pictures(f"{line} --seeds 0..1", 1, usual).stderr
    assert "judge 'sees'" in said and "1 of 2 pictures are finished in out" in said and said.count("\n") == 1
    assert (here / "out" / "00000-a-cat" / "seed-0.png").is_file()
    service.alive.append(True)
    pictures(f"{line} --seeds 0..1", usual=usual)
    assert record("out/summary.json")["mean_reward"] == 7


def test_all_names_are_listed():
    with pytest.raises(
        ValueError, match="reward: got 'beauty', expected one of clip, pick, hps, image-reward, aesthetic, c"
    ):
        check_reward("clip+beauty")
    assert {"composite", "judge:MODEL@URL", "jpeg-size", "module.path:attribute"} <= set(NAMES)
    assert check_reward("2*clip:owner/na-me_1.0 + judge:qwen/vl@http://h:80/v1") == [
        (2.0, "clip:owner/na-me_1.0"), (1.0, "judge:qwen/vl@http://h:80/v1"),
    ]  # fmt: skip
