"""Files of results: what is saved comes back, and what is none is refused."""

import dataclasses

import pytest
import torch

import diamond

from align import best_of_n
from align.alignment import Alignment
from diamond.checkpoint import write_tensors


def test_every_result_comes_back_from_its_file(algorithm, case_a, mild, tmp_path):
    out = algorithm(case_a, mild, batch=2)
    out.save(tmp_path / "deep" / "result.any")
    back = Alignment.load(tmp_path / "deep" / "result.any")
    for field in dataclasses.fields(Alignment):
        saved, loaded = getattr(out, field.name), getattr(back, field.name)
        if isinstance(saved, torch.Tensor):
            assert torch.equal(saved, loaded) and saved.dtype == loaded.dtype, field.name
        else:
            assert saved == loaded, field.name
    assert torch.equal(back.best(), out.best())


def test_forbidden_samples_survive_a_file(case_a, tmp_path, seeded):
    out = best_of_n(case_a, lambda z: torch.where(z[:, 0] < 0, 0.0, -torch.inf), 30, generator=seeded())
    out.save(tmp_path / "result")
    assert torch.equal(Alignment.load(tmp_path / "result").rewards, out.rewards)


def test_models_are_no_results(case_a, tmp_path):
    case_a.save(tmp_path / "model.ckpt")
    with pytest.raises(
        ValueError, match="model.ckpt: it holds a GaussianMixtureFlow, expected an alignment; .*diamond.load"
    ):
        Alignment.load(tmp_path / "model.ckpt")


def test_results_are_no_models(case_a, mild, tmp_path):
    best_of_n(case_a, mild, 3).save(tmp_path / "result")
    with pytest.raises(ValueError, match="result: it holds an alignment, expected a model; .*align.Alignment.load$"):
        diamond.load(tmp_path / "result")


@pytest.mark.parametrize("content", [b"", b"not a result", b"\x80\x04pickle", b"PK\x03\x04zip"])
def test_foreign_files_are_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file: it is .*expected a checkpoint"):
        Alignment.load(tmp_path / "file")


def test_truncated_files_are_refused(case_a, mild, tmp_path):
    best_of_n(case_a, mild, 20).save(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[: len(whole) - 40])
    with pytest.raises(ValueError, match="file: it is empty, truncated or foreign"):
        Alignment.load(tmp_path / "file")


def test_headers_that_describe_no_result_are_refused(tmp_path):
    write_tensors(tmp_path / "file", {"samples": torch.zeros(1, 1, 1)}, {"kind": "alignment", "figures": {}})
    with pytest.raises(ValueError, match="file: .*alignment"):
        Alignment.load(tmp_path / "file")


def test_missing_files_are_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file"):
        Alignment.load(tmp_path / "nowhere")


def test_a_folder_is_no_place_to_save_at(tmp_path, case_a, mild):
    with pytest.raises(ValueError, match="^path: got .*, which is a folder, expected the name of a file"):
        best_of_n(case_a, mild, 3).save(tmp_path)
    assert not list(tmp_path.parent.glob(".*.draft"))
