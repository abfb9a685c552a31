"""The digits' teacher and map: `python -m examples.recipes.digits --minutes 8 --ship`.

A perceptron in whitened coordinates, as `diamond train --conditional` makes it; the map learns the teacher's integrated
posterior flows. What ships was made with `--teacher-steps 2400 --map-steps 8000`.
"""

from __future__ import annotations

from torch import Tensor

from diamond.nets import Network, ResidualMLP, Whitened

from .command import main
from .stages import Recipe

__all__ = ["RECIPE"]


def network(images: Tensor, classes: int, width: int) -> Network:
    """A perceptron of three blocks."""
    return Whitened(ResidualMLP((images[0].numel(),), width, 3, classes), tuple(images.shape[1:]), data=images)


RECIPE = Recipe(
    data="digits",
    source="1797 handwritten digits of the UCI repository (Alpaydin & Kaynak, 1998; CC BY 4.0), as scikit-learn has them.",
    network=network,
    width=256,
    teacher={"learning_rate": 1e-3},
    map={"loss": "trajectory", "times": "uniform", "learning_rate": 2e-3},
    teacher_share=0.25,
    shared={"batch": 256, "label_dropout": 0.2},
    states=32,
)

if __name__ == "__main__":
    main(RECIPE, __doc__, minutes=8)
