"""Linear operators against sums by hand: kernels that are not symmetric, edges of every kind, several channels."""

import pytest
import scipy.ndimage
import torch

from align.rewards.operators import Blur, BoxAverage, Mask, MatrixProduct, gaussian_kernel

EDGES = {
    "reflect": lambda i, n: -i if i < 0 else 2 * (n - 1) - i if i >= n else i,
    "replicate": lambda i, n: min(max(i, 0), n - 1),
    "circular": lambda i, n: i % n,
    "zeros": lambda i, n: i if 0 <= i < n else None,
}


@pytest.fixture
def images():
    return torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def convolved(image, kernel, edge):
    """`sum_ab k_ab z_(i - a)(j - b)` of one channel."""
    (height, width), (h, w) = image.shape, kernel.shape
    result = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            for a in range(-(h // 2), h // 2 + 1):
                for b in range(-(w // 2), w // 2 + 1):
                    row, column = edge(i - a, height), edge(j - b, width)
                    if row is not None and column is not None:
                        result[i, j] += kernel[a + h // 2, b + w // 2] * image[row, column]
    return result


@pytest.mark.parametrize("padding", EDGES)
@pytest.mark.parametrize("shape", [(3, 5), (1, 3), (5, 1)])
def test_a_blur_is_a_convolution_of_each_channel(padding, shape, images):
    kernel = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = Blur(kernel, padding)(images)
    for image, blurred in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.allclose(blurred, convolved(image, kernel, EDGES[padding]), rtol=1e-10)


def test_a_gaussian_kernel_is_one_in_all_and_cut_off_past_three_deviations():
    kernel = gaussian_kernel(0.8)
    assert kernel.shape == (7, 7) and float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    assert float(kernel[3, 4] / kernel[3, 3]) == pytest.approx(float(torch.tensor(-1 / 1.28).exp()))
    dot = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    dot[0, 0, 5, 4] = 1
    expected = scipy.ndimage.gaussian_filter(dot[0, 0].numpy(), 0.8, mode="mirror", radius=3)
    assert torch.allclose(Blur(kernel)(dot)[0, 0], torch.from_numpy(expected))


def test_box_averages_are_means_of_squares(images):
    found = BoxAverage(2)(images[..., :4])
    for i in range(2):
        for j in range(2):
            square = images[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert torch.allclose(found[:, :, i, j], square.mean((2, 3)))
    assert torch.equal(BoxAverage(1)(images), images)


def test_a_matrix_is_applied_to_the_flat_event(images):
    matrix = torch.randn((7, 60), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(MatrixProduct(matrix)(images)[1], matrix @ images[1].flatten())


def test_what_does_not_fit_is_refused_by_name(images):
    with pytest.raises(ValueError, match="^factor: got 0, expected a whole number"):
        BoxAverage(0)
    with pytest.raises(ValueError, match=r"^z: got shape \(2, 3, 4, 5\), expected images .* sides that 2 divides"):
        BoxAverage(2)(images)
    with pytest.raises(ValueError, match=r"^kernel: got shape \(2, 3\), expected \(h, w\) with odd sides"):
        Blur(torch.ones(2, 3))
    with pytest.raises(ValueError, match="^padding: got 'mirror', expected one of reflect, replicate, circular, zeros"):
        Blur(torch.ones(3, 3), "mirror")
    for padding, side in (("reflect", 9), ("circular", 11)):
        with pytest.raises(ValueError, match=f"^kernel: got .* images of 4 by 5 pixels, .*padding='{padding}'"):
            Blur(torch.ones(side, 1), padding)(images)
        Blur(torch.ones(side - 2, 1), padding)(images)
    with pytest.raises(ValueError, match=r"^z: got shape \(2, 60\), expected images"):
        Blur(torch.ones(3, 3))(images.flatten(1))
    for deviation in (0.0, -1.0, float("nan"), "wide", None, [[1.0]]):
        with pytest.raises(ValueError, match="^kernel: got .*, expected a positive standard deviation in pixels"):
            gaussian_kernel(deviation)
    with pytest.raises(ValueError, match=r"^matrix: got shape \(60,\), expected \(M, D\)"):
        MatrixProduct(torch.ones(60))
    with pytest.raises(ValueError, match="^z: got events of 60 entries, expected 59"):
        MatrixProduct(torch.ones(2, 59))(images)
    with pytest.raises(ValueError, match=r"^z: got events of shape \(3, 4, 5\), expected that of the mask, \(4, 5\)"):
        Mask(torch.ones(4, 5))(images)
