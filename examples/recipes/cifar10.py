"""CIFAR-10's teacher and map, for a GPU: `python -m examples.recipes.cifar10 --root data --minutes 25 --ship`.

The folder `--root` holds torchvision's files, which are downloaded if they are missing, or `cifar10.npz` with
`train_images`, `test_images` `(N, 3, 32, 32)` uint8, `train_labels`, `test_labels` and `class_names`. Nobody need watch:
steps are chosen by timing a few, and when the time is up, what there is is saved. `--judge` takes the file of a judge of
these data, as none ships; without one, the card tells of posteriors only.
"""

from __future__ import annotations

from torch import Tensor

from diamond.nets import Network, Preconditioned, UNet

from .command import main
from .stages import Recipe

__all__ = ["RECIPE"]


def network(images: Tensor, classes: int, width: int) -> Network:
    """A U-Net of three resolutions with two blocks at each."""
    net = UNet(tuple(images.shape[1:]), width, (1, 2, 2), 2, attention=16, classes=classes)
    return Preconditioned(net, std=round(float(images.std()), 3), mean=round(float(images.mean()), 3))


RECIPE = Recipe(
    data="cifar10",
    source="Tiny images by Krizhevsky (2009), in the official split; their authors state no licence.",
    network=network,
    width=80,
    teacher={"learning_rate": 5e-4},
    map={"loss": "trajectory", "times": "early", "learning_rate": 5e-4},
    teacher_share=0.4,
    shared={"batch": 256, "label_dropout": 0.1, "flip": True},
)

if __name__ == "__main__":
    main(RECIPE, __doc__, minutes=25)
