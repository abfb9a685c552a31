"""`diamond align --pipeline`: a picture for each prompt and seed, and what is said of it."""

import math

import numpy as np
import pytest
import torch

from PIL import Image

import align
import diamond as package

from align.rewards.decoded import Decoded
from diamond.adapters.pipelines import load_pipeline
from diamond.cli.studio import OwnSampler

TINY = "--height 32 --width 32 --glass-steps 1 -q"
GUIDE = f"--reward 2*brightness+symmetry --method guide --particles 2 --steps 2 --mc 1 {TINY}"


def levels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_a_picture_a_prompt_and_seed(pictures, here, files, record):
    said = pictures("--prompt 'a cat' --prompt 'a Red, round dog!' --seeds 0..1", usual=GUIDE).stdout
    stems = [f"{folder}/seed-{seed}" for folder in ("00000-a-cat", "00001-a-red-round-dog") for seed in (0, 1)]
    assert files("out") == sorted(
        [f"{s}.{e}" for s in stems for e in ("json", "png")] + ["settings.json", "summary.json"]
    )
    records = [record(f"out/{stem}.json") for stem in stems]
    assert [(r["prompt"], r["seed"]) for r in records] == [
        (p, s) for p in ("a cat", "a Red, round dog!") for s in (0, 1)
    ]
    shown = [levels(f"out/{stem}.png") for stem in stems]
    assert shown[0].shape == (32, 32, 3)
    assert all((shown[i] != shown[j]).any() for i in range(4) for j in range(i))
    for figures, image in zip(records, shown, strict=True):
        brightness = float((image / 127.5 - 1).mean())
        assert figures["parts"]["brightness"] == pytest.approx(brightness, abs=0.5 / 127.5)
        parts = 2 * figures["parts"]["brightness"] + figures["parts"]["symmetry"]
        assert figures["reward"] == pytest.approx(parts, abs=1e-5) and figures["reward"] >= figures["mean_reward"]
        assert figures["settings"]["mc"] == 1 and figures["method"] == "guide" and figures["log_z"] is None
        assert figures["made_with"]["settings"] == {"particles": 2, "steps": 2, "mc": 1}
        assert {"torch", "diffusers", "diamond-maps"} <= set(figures["versions"])
    summed = record("out/summary.json")
    assert summed["pictures"] == 4 and [row["prompt"] for row in summed["by_prompt"]] == ["a cat", "a Red, round dog!"]
    assert summed["mean_reward"] == pytest.approx(sum(r["reward"] for r in records) / 4)
    assert summed["by_prompt"][1]["mean_reward"] == pytest.approx((records[2]["reward"] + records[3]["reward"]) / 2)
    for cost in ("nfe", "nfe_backward", "reward_calls"):
        assert summed["cost"][cost] == sum(r[cost] for r in records) > 0
    assert "wrote out/summary.json" in said and "a Red, round dog!" in said


def test_it_is_what_the_methods_give(pictures, saved, record):
    pictures(
        "--prompt 'a cat' --seeds 5", usual=f"--reward brightness --method smc --particles 3 --steps 2 --mc 2 {TINY}"
    )
    pipe = load_pipeline(saved)
    model = package.from_pipeline(pipe, "a cat", height=32, width=32, glass_steps=1)
    seeded = torch.Generator().manual_seed(5)
    reward = Decoded(align.rewards.Brightness(), model)
    result = align.smc(model, reward, particles=3, mc=2, times=model.times(2), generator=seeded)
    figures = record("out/00000-a-cat/seed-5.json")
    assert figures["reward"] == pytest.approx(float(result.rewards.max()), abs=1e-6)
    assert figures["log_z"] == pytest.approx(float(result.log_z), abs=1e-6)
    assert figures["ess"] == pytest.approx(result.ess[:, 0].tolist(), rel=1e-5)
    assert (figures["nfe"], figures["reward_calls"]) == (result.nfe, result.reward_calls)
    assert (levels("out/00000-a-cat/seed-5.png") == np.asarray(model.images(result.best())[0])).all()


def test_schedulers_that_stand_at_other_times_than_steps_are_followed(diamond, here, record):
    from diffusers import KDPM2DiscreteScheduler

    from examples.tiny_pipelines import tiny_pipeline

    pipe = tiny_pipeline("stable-diffusion")
    pipe.scheduler = KDPM2DiscreteScheduler()  # at 7 for 4 steps
    pipe.save_pretrained(here / "kdpm")
    usual = f"--reward brightness --method guide --estimator plugin --particles 1 --steps 4 {TINY}"
    diamond(f"align --pipeline {here / 'kdpm'} --prompt 'a cat' {usual}")
    count = len(package.from_pipeline(pipe, "a cat", height=32, width=32).times(4)) - 1
    assert record("out/00000-a-cat/seed-0.json")["settings"]["steps"] == count != 4


def test_base_is_the_pipelines_own_picture(pictures, saved, record):
    pictures(
        "--prompt 'a cat' --seeds 3", usual="--reward brightness --method base --steps 3 --height 32 --width 32 -q"
    )
    pipe = load_pipeline(saved)
    own = pipe("a cat", height=32, width=32, num_inference_steps=3, generator=torch.Generator().manual_seed(3))
    gap = levels("out/00000-a-cat/seed-3.png") - np.asarray(own.images[0]).astype(int)
    assert abs(gap).max() <= 1
    figures = record("out/00000-a-cat/seed-3.json")
    assert figures["nfe"] == 2 * 3 and figures["reward_calls"] == 1 and figures["log_z"] is None
    assert figures["settings"]["steps"] == 3 and figures["law"].startswith("p(z)")


def test_best_of_n_is_the_best_of_the_pipelines_own(pictures, saved, record):
    usual = "--reward brightness --method best-of-n --particles 5 --steps 2 --height 32 --width 32 -q --all-particles"
    pictures("--prompt 'a cat'", usual=usual)
    figures = record("out/00000-a-cat/seed-0.json")
    rewards = [particle["reward"] for particle in figures["particles"]]
    assert len(rewards) == 5 and rewards == sorted(rewards, reverse=True) and figures["reward"] == rewards[0]
    assert figures["log_z"] == pytest.approx(math.log(sum(map(math.exp, rewards)) / 5), abs=1e-5)
    model = package.from_pipeline(load_pipeline(saved), "a cat", height=32, width=32)
    drawn = model.decode(model.sample(5, 2, generator=torch.Generator().manual_seed(0))).mean((1, 2, 3))
    assert rewards == pytest.approx(drawn.sort(descending=True).values.tolist(), abs=1e-5)
    for particle in figures["particles"]:
        image = levels(f"out/00000-a-cat/{particle['image']}") / 127.5 - 1
        assert image.mean() == pytest.approx(particle["reward"], abs=0.5 / 127.5)
    best = levels(f"out/00000-a-cat/{figures['particles'][0]['image']}")
    assert (best == levels("out/00000-a-cat/seed-0.png")).all()


def test_chunks_change_nothing_but_rounding(pictures, record):
    line = "--prompt 'a cat' --out {} --chunk {} --decode-chunk {}"
    for out, chunk, decode_chunk in (("whole", 9, 9), ("cut", 1, 2)):
        pictures(line.format(out, chunk, decode_chunk), usual=GUIDE)
    whole, cut = (record(f"{out}/00000-a-cat/seed-0.json") for out in ("whole", "cut"))
    assert whole["reward"] == pytest.approx(cut["reward"], abs=1e-4) and whole["nfe"] == cut["nfe"]


def test_a_sampler_of_its_own_counts_what_it_costs(saved):
    model = package.from_pipeline(load_pipeline(saved), "a cat", height=32, width=32)
    result = align.best_of_n(OwnSampler(model, 3), lambda z: z.mean((1, 2, 3)), n=2, chunk=1)
    assert result.nfe == 2 * 3 * 2  # with the prompt and without


def test_prompts_of_a_file(pictures, here, files, record):
    (here / "prompts.txt").write_bytes("\ufeff# animals\n\n  a cat \r\nein Käfer\n   # no\n\n".encode())
    pictures("--prompt 'a dog' --prompt-file prompts.txt --seeds 7")
    found = [record(path)["prompt"] for path in sorted((here / "out").glob("0*/*.json"))]
    assert found == ["a dog", "a cat", "ein Käfer"]
    assert (here / "out" / "00002-ein-kfer" / "seed-7.png").is_file()


def test_few_step_pipelines_too(diamond, here, record, tmp_path_factory):
    from examples.tiny_pipelines import tiny_pipeline

    folder = tmp_path_factory.mktemp("sana-sprint")
    tiny_pipeline("sana-sprint").save_pretrained(folder)
    for method, more in (("guide", "--particles 1 --mc 1 --steps 1"), ("best-of-n", "--particles 2 --steps 2")):
        line = f"--reward brightness --method {method} {more} --height 32 --width 32 -q --out {method}"
        diamond(f"align --pipeline {folder} --prompt 'a cat' {line}")
        figures = record(f"{method}/00000-a-cat/seed-0.json")
        assert figures["nfe"] > 0 and "glass_steps" not in figures["settings"]
        assert figures["made_with"]["glass_steps"] is None


def test_what_the_user_gave_is_asked_for_and_what_was_used_is_recorded(pictures, record, monkeypatch):
    from diamond.cli import studio

    asked, made = [], studio.from_pipeline
    monkeypatch.setattr(studio, "from_pipeline", lambda *_, **given: asked.append(given) or made(*_, **given))
    usual = "--reward brightness --method guide --particles 1 --steps 1 --mc 1 --height 32 -q"
    for out, more, given, used in (
        ("a", "", {}, 4),
        ("b", "--glass-steps 1 --width 32", {"glass_steps": 1, "width": 32}, 1),
    ):
        pictures(f"--prompt 'a cat' --out {out} {more}", usual=usual)
        assert asked.pop() == {"height": 32, "chunk": None, "decode_chunk": None, **given}
        figures = record(f"{out}/00000-a-cat/seed-0.json")
        assert figures["made_with"]["glass_steps"] == given.get("glass_steps")
        assert figures["settings"]["glass_steps"] == used
    pictures("--prompt 'a cat' --out c")  # which takes none
    assert "glass_steps" not in record("c/00000-a-cat/seed-0.json")["settings"]


def test_a_pipeline_in_another_type(pictures, record):
    pictures("--prompt 'a cat' --dtype bf16")
    assert record("out/00000-a-cat/seed-0.json")["made_with"]["dtype"] == "bf16"
    assert levels("out/00000-a-cat/seed-0.png").std() > 0
