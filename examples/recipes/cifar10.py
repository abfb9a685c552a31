"""CIFAR-10's teacher and map, for a GPU: `python -m examples.recipes.cifar10 --root data --minutes 25 --ship`.

A U-Net on 2 x 2 patches (16, 8 and 4 rows), at the data's unit scale, in bfloat16, learns the flow; then its
map learns the teacher's integrated posterior flows, with a perceptual distance and the laws of all draws from the first step
on: pixels alone would leave one-call samples blurred. A quarter of its batch makes samples from noise alone.

The folder `--root` holds torchvision's files, which are downloaded if they are missing, or `cifar10.npz` with
`train_images`, `test_images` `(N, 3, 32, 32)` uint8, `train_labels`, `test_labels` and `class_names`. Nobody need watch:
steps are chosen by timing a few, and when the time is up, what there is is saved. The time is that of training, without what
the card takes. `--guidance 2` makes a map of the guided teacher: clearer classes, and fewer of all that there are in the data.
"""

from __future__ import annotations

from torch import Tensor

from diamond.nets import Network, Preconditioned, UNet

from .command import main
from .stages import Recipe

__all__ = ["RECIPE"]


def network(images: Tensor, classes: int, width: int) -> Network:
    """A U-Net on 2 x 2 patches of three resolutions, the coarser of which attend."""
    net = UNet(tuple(images.shape[1:]), width, (1, 2, 2), (4, 2, 1), attention=8, classes=classes, patch=2)
    return Preconditioned(net, std=round(float(images.std()), 3), mean=round(float(images.mean()), 3))


RECIPE = Recipe(
    data="cifar10",
    source="Tiny images by Krizhevsky (2009), in the official split; their authors state no licence.",
    network=network,
    width=96,
    teacher={"learning_rate": 1.5e-3, "optimizer": "muon"},
    map={
        "loss": "trajectory",
        "times": "early",
        "from_zero": 0.9,
        "from_noise": 0.25,
        "weighting": "adaptive",
        "perceptual": 0.5,
        "law": 30.0,
        "learning_rate": 1e-3,
        "optimizer": "muon",
    },
    features={"widths": (64, 128, 256), "depth": 2, "pooled": True, "steps": 4000, "batch": 256, "flip": True},
    teacher_share=0.38,
    shared={"batch": 1024, "ema": 0.998, "label_dropout": 0.1, "flip": True, "precision": "bf16"},
    save_every=2000,
)

if __name__ == "__main__":
    main(RECIPE, __doc__, minutes=25)
