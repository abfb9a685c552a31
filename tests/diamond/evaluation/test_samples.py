"""Samples before a judge whose features are the pixels themselves."""

import math

import pytest
import torch

from diamond.evaluation import JudgedData, diversity, frechet_distance, sample_quality


class Plain:
    """Features are the pixels; the label is whether the first one is positive."""

    def features(self, z):
        return z.flatten(1)

    def labels(self, z):
        return (z.flatten(1)[:, 0] > 0).long()


@pytest.fixture
def data(seeded):
    """Two classes of images 1x2x2 about -3 and 3, of unequal spread: `(images, labels)`."""
    labels = torch.arange(400) % 2
    images = torch.randn(400, 1, 2, 2, generator=seeded()) * (0.3 + 0.4 * labels)[:, None, None, None]
    return images + (6 * labels - 3.0)[:, None, None, None], labels


def shrunk(images, labels, share):
    """Each class's spread times `share`, about its mean."""
    out = images.clone()
    for label in (0, 1):
        mean = images[labels == label].mean(0)
        out[labels == label] = mean + share * (images[labels == label] - mean)
    return out


@pytest.mark.parametrize("share", [0.25, 1.0, 1.5])
def test_diversity_is_the_share_of_the_spread_within_classes(share, data):
    images, labels = data
    judged = JudgedData.of(Plain(), images, labels)
    made = JudgedData.of(Plain(), shrunk(images, labels, share))
    assert diversity(made, judged) == pytest.approx(share, rel=1e-5)
    few = JudgedData.of(Plain(), shrunk(images, labels, share)[labels == 0])  # a dropped class is not counted
    assert diversity(few, judged) == pytest.approx(share, rel=1e-5)


def test_figures_of_the_data_themselves_and_of_the_wrong_class(data):
    images, labels = data
    judged = JudgedData.of(Plain(), images, labels)
    best = sample_quality(Plain(), judged, images, labels)
    assert best == pytest.approx({"frechet": 0, "precision": 1, "recall": 1, "diversity": 1, "accuracy": 1}, abs=1e-5)
    found = sample_quality(Plain(), judged, images[labels == 0], torch.arange(200) % 4 // 3)
    assert found["accuracy"] == 0.75 and found["precision"] > 0.9 and 0.4 < found["recall"] < 0.6
    assert found["frechet"] == pytest.approx(frechet_distance(images[labels == 0].flatten(1), images.flatten(1)))
    assert "accuracy" not in sample_quality(Plain(), judged, images)


def test_labels_must_be_one_an_image(data):
    images, labels = data
    judged = JudgedData.of(Plain(), images, labels)
    with pytest.raises(ValueError, match=r"^labels: got shape \(4,\), expected one an image, \(400,\)"):
        sample_quality(Plain(), judged, images, labels[:4])


def test_no_class_in_common_has_no_diversity(data):
    images, labels = data
    judged = JudgedData.of(Plain(), images, labels)
    assert math.isnan(diversity(JudgedData.of(Plain(), images[:1]), judged))
