"""`diamond bench`: the layouts that evaluators read, from files in the benchmarks' own formats."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from PIL import Image

GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a photo of a red dog"},
    {"tag": "counting", "include": [{"class": "cup", "count": 2}], "exclude": [{"class": "cup", "count": 3}],
     "prompt": "a photo of two cups"},
]  # fmt: skip
DRAWBENCH = 'Prompts,Category\nA red colored car.,Colors\n"A yellow, or ""gold"", sign.",Text\n'
PARTI = (
    'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tOf several meanings\nThe word "PEACE"\tArts\tComplex\t\n'
)


@pytest.fixture
def prompt_files(here):
    (here / "geneval.jsonl").write_text("\n".join(map(json.dumps, GENEVAL)) + "\n")
    (here / "drawbench.csv").write_text(DRAWBENCH)
    (here / "drawbench.txt").write_text("A red colored car.\n\nA white dog.\n")
    (here / "parti.tsv").write_text(PARTI)


def read_by_geneval(folder):
    """What GenEval's evaluation finds: the metadata and the pictures of each folder of digits."""
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()):
        metadata = json.loads((part / "metadata.jsonl").read_text())
        names = sorted(p.name for p in (part / "samples").iterdir() if p.is_file() and re.match(r"\d+\.png", p.name))
        yield metadata, [Image.open(part / "samples" / name).size for name in names]


def test_geneval(bench, here, prompt_files, record, files):
    bench("geneval --prompts geneval.jsonl --samples 2 --seed 5 --out g")
    assert list(read_by_geneval(here / "g")) == [(entry, [(32, 32)] * 2) for entry in GENEVAL]
    names = [f"samples/{k:04d}.{ending}" for k in (0, 1) for ending in ("json", "png")]
    expected = [f"{i:05d}/{name}" for i in range(3) for name in ("metadata.jsonl", *names)]
    assert files("g") == sorted([*expected, "settings.json", "summary.json"])
    figures = record("g/00001/samples/0001.json")
    assert figures["prompt"] == "a photo of a red dog" and figures["seed"] == 6 and figures["notes"]["tag"] == "colors"
    assert figures["notes"]["number"] == 1 and record("g/summary.json")["pictures"] == 6


def test_geneval_with_every_particle_reads_the_same(bench, here, prompt_files):
    usual = "--reward brightness --method best-of-n --particles 2 --steps 1 --height 32 --width 32 -q --all-particles"
    bench("geneval --prompts geneval.jsonl --samples 1 --limit 1", usual=usual)  # to the benchmark's own name
    assert list(read_by_geneval(here / "geneval")) == [(GENEVAL[0], [(32, 32)])]
    assert len(list((here / "geneval").rglob("*.png"))) == 3


def test_drawbench_is_a_flat_folder_a_sample(bench, here, prompt_files, record, files):
    bench("drawbench --prompts drawbench.csv --samples 2 --format jpg --out d")
    names = [f"images/{k}/{i:05d}.{ending}" for k in (0, 1) for i in (0, 1) for ending in ("jpg", "json")]
    assert files("d") == sorted([*names, "drawbench.json", "settings.json", "summary.json"])
    prompts = record("d/drawbench.json")
    assert prompts == ["A red colored car.", 'A yellow, or "gold", sign.']
    assert Image.open("d/images/1/00001.jpg").format == "JPEG"
    figures = record("d/images/1/00001.json")
    assert figures["notes"] == {"number": 1, "category": "Text"} and (figures["prompt"], figures["seed"]) == (
        prompts[1],
        1,
    )
    assert list((here / "d" / "images").iterdir()) and not [p for p in (here / "d" / "images").iterdir() if p.is_file()]


def test_prompts_of_several_lines_stay_whole(bench, here, record):
    (here / "lines.csv").write_bytes(b'Prompts,Category\r\n"one\r\n\r\nsign, two\r\nlines",Text\r\nplain,Colors\r\n')
    bench("drawbench --prompts lines.csv --samples 1 --out d")
    assert record("d/drawbench.json") == ["one\n\nsign, two\nlines", "plain"]
    assert record("d/images/0/00000.json")["notes"] == {"number": 0, "category": "Text"}


def test_partiprompts(bench, prompt_files, record, files):
    bench("partiprompts --prompts parti.tsv --samples 1 --out p")
    assert record("p/partiprompts.json") == ["bond", 'The word "PEACE"']
    assert record("p/images/0/00000.json")["notes"] == {
        "number": 0, "category": "Abstract", "challenge": "Basic", "note": "Of several meanings",
    }  # fmt: skip
    assert record("p/images/0/00001.json")["notes"] == {"number": 1, "category": "Arts", "challenge": "Complex"}
    assert Image.open("p/images/0/00001.png").format == "PNG"


def test_more_prompts_and_samples_go_on_from_what_stands(bench, here, prompt_files, record):
    bench("drawbench --prompts drawbench.txt --samples 1 --limit 1 --out d")
    first = here / "d" / "images" / "0" / "00000.png"
    stamp, pixels = first.stat().st_mtime_ns, np.asarray(Image.open(first))
    assert record("d/drawbench.json") == ["A red colored car."]
    for index in (1, 0):
        bench(f"drawbench --prompts drawbench.txt --samples 2 --out d --shard {index}/2")
    assert record("d/drawbench.json") == ["A red colored car.", "A white dog."]
    assert record("d/summary.json")["pictures"] == 4 and first.stat().st_mtime_ns == stamp
    bench("drawbench --prompts drawbench.txt --samples 2 --out whole")
    for path in (here / "whole").rglob("*.png"):
        assert path.read_bytes() == (here / "d" / path.relative_to(here / "whole")).read_bytes()
    assert (pixels == np.asarray(Image.open(here / "whole" / "images" / "0" / "00000.png"))).all()


def test_another_benchmark_in_the_same_folder_is_refused(bench, prompt_files):
    bench("drawbench --prompts drawbench.txt --samples 1 --out d")
    said = bench("drawbench --prompts drawbench.csv --samples 1 --out d --limit 1 --guidance-scale 3", code=2).stderr
    assert "out: d holds pictures of other settings" in said
    said = bench("partiprompts --prompts parti.tsv --samples 1 --out d", code=2).stderr
    assert "was made for the prompt 'A red colored car.'" in said


LIGHT = """
import sys
from typer.testing import CliRunner
from diamond.cli import app
said = CliRunner().invoke(app, ["bench", "--help"])
assert said.exit_code == 0 and "geneval" in said.stdout
heavy = {"torch", "numpy", "diffusers", "transformers", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_needs_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
