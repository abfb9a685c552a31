"""Pictures that stand are kept: a second run, shares, Ctrl-C, and rewards that go away in the middle."""

import json
import sys

from pathlib import Path

import pytest

from diamond.cli.jobs import process_share, share_of

BASE = "--reward brightness --method base --steps 1 --height 32 --width 32 -q"
TWO = "--prompt 'a cat' --prompt 'a dog' --seeds 0..1"
STEMS = [f"0000{i}-a-{animal}/seed-{seed}" for i, animal in enumerate(("cat", "dog")) for seed in (0, 1)]
FAILING = """
import torch
from align import RewardFailure
calls = []
def gone(images):
    calls.append(len(images))
    if len(calls) > 2:
        raise RewardFailure("judge 'j' at http://nowhere: no answer", torch.full((len(images),), torch.nan))
    return images.mean((1, 2, 3))
def closed(images):
    raise ConnectionRefusedError(111, "Connection refused")
def stopped(images):
    calls.append(len(images))
    if len(calls) > 3:
        raise KeyboardInterrupt
    return images.mean((1, 2, 3))
def wrong(images):
    calls.append(len(images))
    return images.mean((1, 2, 3)) if len(calls) < 2 else None
"""


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).glob("0*/*")}


def pixels(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.png")}


def test_what_is_finished_is_kept_and_the_rest_made(pictures, here, record):
    pictures(TWO)
    before, images = stamps("out"), pixels("out")
    said = pictures(TWO).stdout
    assert "found 4 of 4 pictures finished" in said and stamps("out") == before
    (here / "out" / f"{STEMS[0]}.json").unlink()
    (here / "out" / f"{STEMS[1]}.json").write_text((here / "out" / f"{STEMS[1]}.json").read_text()[:200])
    (here / "out" / f"{STEMS[2]}.png").write_bytes(images[f"{STEMS[2]}.png"][:300])
    assert "found 1 of 4" in pictures(TWO).stdout
    after = stamps("out")
    kept = [path for path in after if after[path] == before[path]]
    assert [str(path) for path in sorted(kept)] == [f"out/{STEMS[3]}.json", f"out/{STEMS[3]}.png"]
    assert pixels("out") == images and record("out/summary.json")["pictures"] == 4


def test_a_second_run_loads_nothing(pictures, monkeypatch):
    pictures(TWO)
    monkeypatch.setattr("diamond.cli.studio.load_pipeline", lambda *_, **__: pytest.fail("the pipeline was loaded"))
    pictures(TWO)


def test_prompts_and_seeds_may_be_added(pictures):
    pictures("--prompt 'a cat' --seeds 0")
    before = stamps("out")
    pictures(TWO)
    assert len(stamps("out")) == 8 and before.items() <= stamps("out").items()


def test_another_way_to_make_them_is_refused(pictures, here):
    pictures("--prompt 'a cat'")
    before = stamps("out")
    said = pictures("--prompt 'a cat' --guidance-scale 2", code=2).stderr
    assert "out: out holds pictures of other settings (guidance_scale None there and 2.0 here)" in said
    said = pictures(
        "--prompt 'a cat'", code=2, usual="--reward brightness --method base --steps 2 --width 32 -q"
    ).stderr
    assert "settings {'steps': 1} there and {'steps': 2} here" in said and "height 32 there and None here" in said
    assert said.count("\n") == 1 and stamps("out") == before
    pictures("--prompt 'a cat' --chunk 1")  # which decides nothing
    (here / "out" / "settings.json").write_text("{")
    assert "settings.json is no JSON" in pictures("--prompt 'a cat'", code=2).stderr


def test_a_picture_of_another_prompt_in_its_place_is_refused(pictures):
    pictures("--prompt 'a cat'")
    said = pictures("--prompt 'A cat!'", code=2).stderr  # of the same name
    assert "was made for the prompt 'a cat' and the seed 0, expected 'A cat!' and 0" in said


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_of_it_once(count):
    jobs = list(range(11))
    shares = [share_of(jobs, (index, count)) for index in range(count)]
    assert sum(shares, []) == jobs and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shares_together_are_the_whole(pictures, here, record, monkeypatch):
    pictures(f"{TWO} --seeds 0..2 --out whole")
    for index in (2, 0):
        said = pictures(f"{TWO} --seeds 0..2 --out parts --shard {index}/3").stdout
        assert f"share {index}/3 is finished" in said and not (here / "parts" / "summary.json").exists()
    monkeypatch.setenv("RANK", "1"), monkeypatch.setenv("WORLD_SIZE", "3")
    assert "wrote parts/summary.json" in pictures(f"{TWO} --seeds 0..2 --out parts").stdout
    assert pixels("whole") == pixels("parts") and len(pixels("whole")) == 6
    whole, parts = (record(f"{out}/summary.json") for out in ("whole", "parts"))
    for summed in (whole, parts):
        summed["cost"].pop("seconds")
    assert whole == parts


def test_the_share_by_rank(monkeypatch):
    assert process_share(None) == (0, 1) and process_share("2/4") == (2, 4)
    monkeypatch.setenv("RANK", "3"), monkeypatch.setenv("WORLD_SIZE", "4")
    assert process_share(None) == (3, 4)
    with pytest.raises(ValueError, match="shard: got '0/2' in one of 4 processes"):
        process_share("0/2")


@pytest.mark.parametrize(
    ("rank", "world"), [("2", "2"), ("1", "1"), ("0", "0"), ("-1", "2"), ("first", "2"), ("0", "")]
)
def test_a_rank_beyond_the_world_is_refused(rank, world, monkeypatch, pictures, here):
    monkeypatch.setenv("RANK", rank), monkeypatch.setenv("WORLD_SIZE", world)
    for shard in ("", "--shard 0/2"):
        said = pictures(f"--prompt x {shard}", code=2).stderr
        assert f"RANK, WORLD_SIZE: got '{rank}' and '{world}' in the environment, expected" in said
        assert said.count("\n") == 1 and not list(here.iterdir())


@pytest.mark.parametrize(
    ("reward", "code", "finished", "sentence"),
    [
        ("gone", 1, 2, "Error: judge 'j' at http://nowhere: no answer; 2 of 4 pictures are finished in out"),
        ("closed", 1, 0, "Connection refused; 0 of 4 pictures are finished"),
        ("stopped", 130, 3, "interrupted; 3 of 4 pictures are finished in out, and the same command goes on"),
        ("wrong", 2, 1, "reward: it returned NoneType"),
    ],
)
def test_what_is_finished_outlives_a_reward(reward, code, finished, sentence, pictures, here, files, monkeypatch):
    (here / "failing_rewards.py").write_text(FAILING)
    monkeypatch.delitem(sys.modules, "failing_rewards", raising=False)
    monkeypatch.syspath_prepend(here)
    usual = f"--reward failing_rewards:{reward} --method base --steps 1 --height 32 --width 32 -q"
    said = pictures(TWO, code, usual).stderr
    assert sentence in said and said.count("\n") == 1 and "Traceback" not in said
    expected = [f"{stem}.{ending}" for stem in STEMS[:finished] for ending in ("json", "png")]
    assert files("out") == sorted([*expected, "settings.json"] if finished else [])
    before = stamps("out")
    monkeypatch.delitem(sys.modules, "failing_rewards")
    (here / "failing_rewards.py").write_text(f"def {reward}(images):\n    return images.mean((1, 2, 3))\n" + "#" * 999)
    pictures(TWO, usual=usual)
    assert len(stamps("out")) == 8 and before.items() <= stamps("out").items()


def test_a_real_signal(saved, here, interrupted):
    line = f"align --pipeline {saved} --prompt 'a cat' --seeds 0..999 {BASE}"
    code, said = interrupted(line, lambda: [*here.glob("out/0*/*.json")])
    assert code == 130, said
    count = len(list(here.glob("out/0*/*.json")))
    assert f"interrupted; {count} of 1000 pictures are finished in out" in said and "Traceback" not in said
    for file in here.glob("out/0*/*.json"):
        assert json.loads(file.read_text())["prompt"] == "a cat" and file.with_suffix(".png").is_file()
    assert not list(here.rglob("*.draft"))
