"""Text-to-image pipelines of diffusers as models on their latents."""

from .loading import FAMILIES, from_pipeline, load_pipeline
from .models import PipelineFlow, PipelineMap
from .network import LatentNetwork

__all__ = ["FAMILIES", "LatentNetwork", "PipelineFlow", "PipelineMap", "from_pipeline", "load_pipeline"]
