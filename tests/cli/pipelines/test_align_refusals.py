"""Bad input for `diamond align --pipeline` and `diamond bench`: one sentence, exit code 2, and nothing written."""

import json
import shutil
import sys

import pytest

REWARDS = """
import torch
number = 3
def nan(images): return torch.full((len(images),), float("nan"))
def none(images, prompts): return None
"""
USUAL = {"--reward": "brightness", "--method": "base", "--height": "32", "--width": "32"}


@pytest.fixture
def place(here, saved):
    """A folder of files that are wrong, each in its own way."""
    (here / "folder").mkdir()
    (here / "file").write_text("hello")
    (here / "blank.txt").write_text("\n  \n# only this\n")
    (here / "binary.txt").write_bytes(b"\xff\xfe\x00cat")
    (here / "odd.jsonl").write_text('{"prompt": "a cat", "tag": "x"}\n{"prompt": 3}\n')
    (here / "odd.JSON").write_text('["a cat"]')
    (here / "columns.tsv").write_text("Text\tCategory\na cat\tAnimals\n")
    (here / "odd_rewards.py").write_text(REWARDS)
    return {"pipe": saved}


CASES = {
    "align": "model: got neither --model nor --pipeline",
    "align --model digits --pipeline {pipe} --prompt x": "model: got both --model and --pipeline, expected one of them",
    "align --model digits --prompt x": "prompt: it belongs to --pipeline, expected none without it",
    "align --model digits --seeds 0": "seeds: it belongs to --pipeline",
    "align --model digits --all-particles": "all_particles: it belongs to --pipeline",
    "align --model digits --reward clip": "reward: got 'clip', which judges a pipeline's pictures",
    "align --pipeline {pipe} --prompt x --batch 1": "batch: it belongs to --model, expected none without it",
    "align --pipeline {pipe} --prompt x --label 1": "label: it belongs to --model",
    "align --pipeline {pipe} --prompt x --seed 0": "seed: it belongs to --model",
    "align --pipeline {pipe}": "prompt: got none, expected --prompt, once or more often, or --prompt-file",
    "align --pipeline {pipe} --prompt ' '": "prompt: got ' '",
    "align --pipeline {pipe} --prompt-file nowhere": "prompt_file: there is no file nowhere",
    "align --pipeline {pipe} --prompt-file blank.txt": "prompt_file: blank.txt holds no prompts, expected one a line",
    "align --pipeline {pipe} --prompt-file binary.txt": "prompt_file: binary.txt is no text in UTF-8",
    "align --pipeline {pipe} --prompt x --seeds 3..1": "seeds: got '3..1', expected whole numbers like 7, 0..3",
    "align --pipeline {pipe} --prompt x --seeds -1": "seeds: got '-1'",
    "align --pipeline {pipe} --prompt x --seeds 1,": "seeds: got '1,'",
    "align --pipeline {pipe} --prompt x --shard 4/4": "shard: got '4/4', expected a share like 0/4",
    "align --pipeline {pipe} --prompt x --shard two": "shard: got 'two'",
    "align --pipeline {pipe} --prompt x --reward beauty": "reward: got 'beauty', expected one of clip, pick, hps",
    "align --pipeline {pipe} --prompt x --reward clip+": "reward: got 'clip+', expected a sum like",
    "align --pipeline {pipe} --prompt x --reward clip:": "reward: got 'clip:'",
    "align --pipeline {pipe} --prompt x --reward clip:./nowhere": "./nowhere: there is no such folder or file",
    "align --pipeline {pipe} --prompt x --reward clip:a.pt": "a.pt: got a pickle, which may run any code",
    "align --pipeline {pipe} --prompt x --reward class:3": "reward: got 'class:3', whose classifier learns from a model's",
    "align --pipeline {pipe} --prompt x --reward judge:model": "reward: got 'judge:model', expected a model and a service",
    "align --pipeline {pipe} --prompt x --reward mean-colour:beautiful": "colour: got 'beautiful'",
    "align --pipeline {pipe} --prompt x --reward not_there_at_all:r": "not_there_at_all cannot be imported",
    "align --pipeline {pipe} --prompt x --reward odd_rewards:number": "expected a callable",
    "align --pipeline {pipe} --prompt x --method luck": "method: got 'luck'",
    "align --pipeline {pipe} --prompt x --particles 3": "particles: base has no such setting, expected only steps",
    "align --pipeline {pipe} --prompt x --method best-of-n --rho 0.5": "rho: best-of-n has no such setting",
    "align --pipeline {pipe} --prompt x --steps 0": "steps: got 0",
    "align --pipeline {pipe} --prompt x --chunk 0": "chunk: got 0",
    "align --pipeline {pipe} --prompt x --decode-chunk 0": "decode_chunk: got 0",
    "align --pipeline {pipe} --prompt x --glass-steps 0": "glass_steps: got 0",
    "align --pipeline {pipe} --prompt x --glass-steps 2": "glass_steps: got 2 for base, which draws by the pipeline's own",
    "align --pipeline {pipe} --prompt x --method best-of-n --glass-steps 2": "glass_steps: got 2 for best-of-n",
    "align --pipeline {pipe} --prompt x --height 30": "height: got 30, expected a multiple of 8 pixels",
    "align --pipeline {pipe} --prompt x --width -8": "width: got -8",
    "align --pipeline {pipe} --prompt x --kind fast": "kind: got 'fast', expected one of flow, few-step, flow-map",
    "align --pipeline {pipe} --prompt x --kind flow-map": "kind: got 'flow-map' for a StableDiffusionPipeline",
    "align --pipeline {pipe} --prompt x --dtype int8": "dtype: got 'int8', expected one of bf16, fp16, fp32",
    "align --pipeline {pipe} --prompt x --device abacus": "device: got 'abacus'",
    "align --pipeline {pipe} --prompt x --reward-device abacus": "reward_device: got 'abacus'",
    "align --pipeline {pipe} --prompt x --offload --device cpu": "offload: got it on the cpu",
    "align --pipeline {pipe} --prompt x --out file": "file' is a file, expected a folder there",
    "align --pipeline folder --prompt x": "pipeline: folder is a folder without a model_index.json",
    "align --pipeline file --prompt x": "pipeline: file is a file, expected a folder",
    "align --pipeline nowhere --prompt x": "pipeline: there is no folder nowhere, expected one that diffusers saved to",
    "align --pipeline ./no/where --prompt x": "pipeline: there is no folder ./no/where",
    "align --pipeline no/where --prompt x": "no/where: it cannot be read as a pipeline",
    "bench luck --prompts odd.jsonl --pipeline {pipe}": "benchmark: got 'luck', expected one of geneval, drawbench",
    "bench geneval --prompts nowhere --pipeline {pipe}": "prompts: there is no file nowhere",
    "bench geneval --prompts odd.jsonl --pipeline {pipe}": "prompts: line 2 of odd.jsonl is no JSON object with a 'prompt'",
    "bench geneval --prompts file --pipeline {pipe}": "prompts: line 1 of file is no JSON object",
    "bench geneval --prompts odd.jsonl --pipeline {pipe} --format jpg": "format: got 'jpg', expected 'png'",
    "bench drawbench --prompts odd.jsonl --pipeline {pipe} --format gif": "format: got 'gif'",
    "bench drawbench --prompts odd.jsonl --pipeline {pipe} --samples 0": "samples: got 0",
    "bench drawbench --prompts odd.jsonl --pipeline {pipe} --limit 0": "limit: got 0",
    "bench drawbench --prompts odd.jsonl --pipeline {pipe}": "odd.jsonl is JSON, expected a .csv or .tsv with a column",
    "bench partiprompts --prompts odd.JSON --pipeline {pipe}": "odd.JSON is JSON",
    "bench partiprompts --prompts columns.tsv --pipeline {pipe}": "columns.tsv has the columns Text, Category, expected",
    "bench partiprompts --prompts columns.tsv --pipeline nowhere": "columns.tsv",
}


@pytest.mark.parametrize("line", CASES)
def test_bad_input_gets_one_sentence(line, diamond, place, here):
    before = sorted(here.rglob("*"))
    words = line.format(**place)
    model = "--model" in words and "--pipeline" not in words
    usual = " ".join(f"{name} {value}" for name, value in USUAL.items() if name not in words.split())
    if model or words == "align":
        usual = "" if "--reward" in words.split() else "--reward brightness"
    said = diamond(f"{words} {usual} --quiet", code=2)
    assert CASES[line] in said.stderr
    assert said.stderr.startswith("Error: ") and said.stderr.count("\n") == 1 and "Traceback" not in said.stderr
    assert "wrote" not in said.stdout
    assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in str(path)] == before


def test_a_reward_that_gives_no_numbers_leaves_no_picture(diamond, place, here):
    usual = "--method base --height 32 --width 32 -q --prompt x"
    for reward, words in (("nan", "it returned nan"), ("none", "it returned NoneType")):
        said = diamond(f"align --pipeline {place['pipe']} --reward odd_rewards:{reward} {usual} --out {reward}", code=2)
        assert words in said.stderr and said.stderr.count("\n") == 1
        assert not (here / reward).exists()
    line = f"align --pipeline {place['pipe']} --reward jpeg-size --method guide --particles 1 --mc 2 --steps 2 {usual}"
    line = line.replace("--method base", "")
    assert "estimator='score'" in diamond(line, code=2).stderr
    diamond(f"{line} --estimator score --glass-steps 1")  # what was refused does not bind the folder


@pytest.mark.parametrize(("missing", "extra"), [("diffusers", "diffusers"), ("transformers", "rewards")])
def test_a_missing_package_is_answered_with_how_to_install_it(missing, extra, diamond, place, monkeypatch):
    reward = "brightness" if missing == "diffusers" else "clip"
    monkeypatch.undo()
    monkeypatch.chdir(place["pipe"].parent)
    monkeypatch.setitem(sys.modules, missing, None)
    line = f"align --pipeline {place['pipe']} --reward {reward} --method base -q --prompt x --out o"
    said = diamond(line, code=2).stderr
    assert f"pip install 'diamond-maps[{extra}]'" in said and said.count("\n") == 1


def test_an_unsupported_pipeline_is_answered_with_those_that_are(diamond, saved, here):
    shutil.copytree(saved, here / "other")
    index = json.loads((here / "other" / "model_index.json").read_text()) | {
        "_class_name": "StableDiffusionImg2ImgPipeline"
    }
    (here / "other" / "model_index.json").write_text(json.dumps(index))
    line = "align --pipeline other --reward brightness --method base -q --prompt x"
    said = diamond(line, code=2).stderr
    assert "got a StableDiffusionImg2ImgPipeline, expected one of FluxPipeline" in said and not (here / "out").exists()
