"""The residual network as a judge: against its formula, and before those who ask judges."""

import pytest
import torch

from safetensors import torch as safetensors
from torch.nn import functional as F

from diamond import judges
from diamond.data import Data
from diamond.evaluation import JudgedData, sample_quality


def by_the_formula(weights, n, z):
    """Features `(N, 64)` and logits of images in [-1, 1], from arrays by name."""

    def normalised(x, name):
        scale, shift, mean, variance = (
            weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return scale * (x - mean) / (variance + 1e-5).sqrt() + shift

    x = torch.empty_like(z)
    for i, (mean, deviation) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        x[:, i] = (0.5 * z[:, i] + 0.5 - mean) / deviation
    x = normalised(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1").clamp(min=0)
    for stage in (1, 2, 3):
        for block in range(n):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, weights[f"{name}.conv1.weight"], padding=1, stride=stride)
            y = F.conv2d(normalised(y, f"{name}.bn1").clamp(min=0), weights[f"{name}.conv2.weight"], padding=1)
            y = normalised(y, f"{name}.bn2")
            if stride == 2:  # the old channels in the middle of the new ones
                quarter = y.shape[1] // 4
                y[:, quarter : 3 * quarter] += x[:, :, ::2, ::2]
            else:
                y = y + x
            x = y.clamp(min=0)
    features = x.flatten(2).sum(2) / 64  # 8 x 8 pixels
    return features, features @ weights["linear.weight"].T + weights["linear.bias"]


@pytest.fixture
def judge(weights, tmp_path):
    """`judge(n, classes)` as it comes from its file, whose weights are exact in single precision."""

    def load(n=1, classes=10):
        arrays = {name: array.float() for name, array in weights(n, classes).items()}
        safetensors.save_file(arrays, tmp_path / "published.safetensors")
        return judges.load(tmp_path / "published.safetensors"), {name: a.double() for name, a in arrays.items()}

    return load


@pytest.mark.parametrize("n, classes", [(1, 10), (3, 10), (2, 7)])
def test_it_is_the_network_of_the_formula(n, classes, judge, images):
    found, arrays = judge(n, classes)
    features, logits = by_the_formula(arrays, n, images)
    found = found.double()
    assert found.size == 64 and found.classes == classes and found.event_shape == (3, 32, 32)
    assert torch.allclose(found.features(images), features, rtol=1e-10, atol=1e-10)
    assert torch.allclose(found(images), logits, rtol=1e-10, atol=1e-10)
    assert torch.equal(found.labels(images), logits.argmax(1))
    expected = logits - logits.logsumexp(1, keepdim=True)
    assert torch.allclose(found.log_probabilities(images), expected, rtol=1e-10, atol=1e-10)
    assert float((features.std(0) > 0).double().mean()) > 0.9 and logits.std() > 0.1  # there is something to compare


def test_it_has_as_many_layers_as_its_name_says(judge):
    for n in (1, 2, 3, 5):
        found, _ = judge(n)
        layers = sum(isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)) for part in found.modules())
        assert layers == 6 * n + 2 and found.network == f"ResNet-{layers}" == found.metadata["network"]
    assert found.title == "judge 'published' (a ResNet-32 of the published weights in that file)"


def test_a_new_network_makes_no_claim_to_published_weights():
    assert judges.ResidualJudge(3, 100).title == "judge 'unnamed' (a ResNet-20)"
    with pytest.raises(ValueError, match="^blocks: got 0"):
        judges.ResidualJudge(0)
    with pytest.raises(ValueError, match="^classes: got 1"):
        judges.ResidualJudge(1, 1)


def test_it_is_frozen_in_evaluation_mode_and_leaves_the_global_random_state_alone(judge, images):
    before = torch.random.get_rng_state()
    found, _ = judge(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(part.training for part in found.modules()) and not any(p.requires_grad for p in found.parameters())
    assert found.head.weight.dtype == torch.float32 and found.features(images.half()).dtype == torch.float32
    alone = torch.cat([found.features(image[None]) for image in images])
    assert torch.allclose(found.features(images), alone, rtol=1e-4, atol=1e-5)  # no statistics of the batch


def test_gradients_reach_the_images_and_other_shapes_are_refused(judge, images):
    found, _ = judge(1)
    z = images.float().requires_grad_()
    (gradient,) = torch.autograd.grad(found.log_probabilities(z)[:, 0].sum(), z)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    with pytest.raises(ValueError, match=r"^z: got shape \(5, 3, 28, 28\), expected .* \(B, 3, 32, 32\)$"):
        found(images[..., 2:-2, 2:-2])


def test_samples_and_data_are_measured_before_it_as_before_any_judge(judge):
    found, arrays = judge(1)
    z = 2 * torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    labels = by_the_formula(arrays, 1, z)[1].argmax(1)
    labels[:15] = (labels[:15] + 1) % 10
    assert judges.accuracy(found, Data(z.float(), labels, "noise")) == 0.75
    figures = sample_quality(found, JudgedData.of(found, z[:30].float()), z[30:].float(), labels[30:])
    assert figures["accuracy"] == 1 and figures["frechet"] > 0
