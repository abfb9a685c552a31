"""MNIST's teacher and map: `python -m examples.recipes.mnist --root data --minutes 270 --ship`.

A U-Net on 2 x 2 patches (14, 7 and 4 rows), at the data's unit scale. One CPU thread takes about 3 ms for a sample forward
and backward, and half of that in bfloat16 where the processor has it; the map learns the teacher's integrated posterior
flows, which costs no derivative of the network. Then a network of three times as many blocks on the two smaller grids goes on
from it, at early times, on finer trajectories, and with a perceptual distance, as pixels alone forgive strokes that are not
quite decided. A last round, with Muon's steps, compares the laws of all draws and of all targets as well, for an error that
all samples share is small in each; and a fifth of it makes samples from noise alone. What ships was made with
`--teacher-steps 3600 --map-steps 14000 --refine-steps 5600 4800`. The stages can be started one by one, `--stage teacher`,
`map`, `refine` and `card`, with the same `--minutes` and folder `--out`, and each goes on where it was killed.
"""

from __future__ import annotations

from torch import Tensor

from diamond.nets import Network, Preconditioned, UNet

from .command import main
from .stages import Recipe

__all__ = ["RECIPE"]


def network(images: Tensor, classes: int, width: int) -> Network:
    """A U-Net of three resolutions."""
    net = UNet(tuple(images.shape[1:]), width, (1, 3, 4), attention=4, classes=classes, patch=2)
    return Preconditioned(net, std=round(float(images.std()), 3), mean=round(float(images.mean()), 3))


REFINED = {
    "times": "early",
    "from_zero": 0.9,
    "points": 12,
    "weighting": "adaptive",
    "perceptual": 0.3,
    "learning_rate": 7e-4,
}
RECIPE = Recipe(
    data="mnist",
    source="Handwritten digits by LeCun, Cortes and Burges (CC BY-SA 3.0), as torchvision has them.",
    network=network,
    width=32,
    teacher={"learning_rate": 1e-3},
    map={"loss": "trajectory", "times": "uniform", "learning_rate": 1e-3, "precision": "bf16"},
    blocks=(1, 3, 3),
    refine=(REFINED, {**REFINED, "law": 30.0, "from_noise": 0.2, "optimizer": "muon", "learning_rate": 5e-4}),
    teacher_share=0.1,
    refine_share=0.3,
    shared={"batch": 128, "label_dropout": 0.1},
)

if __name__ == "__main__":
    main(RECIPE, __doc__, minutes=270)
