r"""How much people like the look of an image, whatever it shows: a linear head on CLIP's unit vector of the image.

The head's five layers have no activations between them, so that the score is linear in the unit vector.

References:
    | LAION-Aesthetics (Schuhmann, 2022)
    | https://laion.ai/blog/laion-aesthetics/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .clip import embedding, load_clip
from .head import head_from
from .loading import common_prefix, read_processor, read_tensors
from .preprocessing import Preprocessing
from .prompted import PretrainedReward

__all__ = ["LAIONAesthetic"]


class LAIONAesthetic(PretrainedReward):
    """The predicted rating of an image, about 1 to 10; it asks for no prompt.

    Arguments:
        model: the hub's id of a repository or a folder, with the CLIP network of transformers that the head was made for.
        head: a .safetensors file, or a folder or repository with a `model.safetensors`: the head's tensors, called
            `layers.0.weight` to `layers.7.bias`; others in the file are left alone.
        preprocessing: from images to what the network sees, by default that of `model`.
        local_files_only: whether nothing is fetched from the hub.
        device, dtype, chunk, checkpoint: as in :class:`~align.rewards.pretrained.prompted.PretrainedReward`.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: there is no such model, or no such head.
        ValueError: an argument that does not fit, or a head of another kind; when called, images that do not fit.
    """

    def __init__(
        self,
        model: str | Path = "openai/clip-vit-large-patch14",
        *,
        head: str | Path = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",
        preprocessing: Preprocessing | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> None:
        whole = load_clip(model, local_files_only)
        tensors = read_tensors(head, local_files_only)
        prefix = common_prefix(tensors, "layers.0.weight", head)
        top: Any = head_from(tensors, f"{prefix}layers.", str(head))
        inputs, outputs = top[0].in_features, whole.visual_projection.out_features
        if inputs != outputs:
            raise ValueError(
                f"head: got one for vectors of {inputs} numbers and a model that gives {outputs}, expected the same"
            )
        if preprocessing is None:
            config = read_processor(model, local_files_only)
            size = whole.config.vision_config.image_size
            preprocessing = Preprocessing(size, size) if config is None else Preprocessing.from_config(config)
        parts = {"tower": whole.vision_model, "projection": whole.visual_projection, "head": top}
        super().__init__(nn.ModuleDict(parts), preprocessing, **settings)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(images)

    def score(self, pixels: Tensor, *rows: Tensor) -> Tensor:
        features = self.network["projection"](self.network["tower"](pixel_values=pixels).pooler_output)
        return self.network["head"](embedding(features).to(self.dtype)).squeeze(-1)
