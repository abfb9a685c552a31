"""Text-to-image pipelines of diffusers with random weights, a few hundred kilobytes each, made without any download.

They have every part of the real ones, real classes and schedules, and make noise: for tests, benchmarks of overhead, and
for trying out a program before it meets a large model. `python -m examples.tiny_pipelines FOLDER` saves them all.
"""

from __future__ import annotations

import sys

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import transformers

from diamond.randomness import seeded

__all__ = ["CALLS", "PIPELINES", "tiny_pipeline"]

BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
PRINTABLE = [chr(i) if i in BYTES else chr(256 + i) for i in range(256)]  # a stand-in for each byte
ASCII = [chr(i) for i in range(33, 127)]
SPACE = "\u2581"
DIM = 32


# ---------------------------------------------------------------- tokenizers and text encoders


def clip_tokenizer() -> Any:
    """One token a character, begin and end last, as CLIP's are."""
    tokens = [*PRINTABLE, *(c + "</w>" for c in PRINTABLE), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """One token a character."""
    extra = [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (SPACE, -2.0), *((c, -4.0) for c in ASCII), *extra]
    return transformers.T5Tokenizer(vocab=words, extra_ids=100, model_max_length=512)


def gemma_tokenizer() -> Any:
    """One token a character."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256)), SPACE, *ASCII]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=512)


def clip_text(tokenizer: Any, projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=DIM, intermediate_size=4 * DIM, num_hidden_layers=2, num_attention_heads=4,
        projection_dim=DIM, hidden_act="gelu", bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config).eval()


def t5_text(tokenizer: Any) -> Any:
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=DIM, d_kv=8, d_ff=4 * DIM, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval()


def gemma_text(tokenizer: Any) -> Any:
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=DIM, intermediate_size=2 * DIM, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2, query_pre_attn_scalar=8,
        sliding_window=512,
    )  # fmt: skip
    return transformers.Gemma2Model(config).eval()


# ---------------------------------------------------------------- autoencoders and networks


def autoencoder(channels: int, **config: Any) -> Any:
    """A KL autoencoder that shrinks eightfold."""
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(8,) * 4, layers_per_block=1,
        latent_channels=channels, norm_num_groups=4, sample_size=32, **config,
    ).eval()  # fmt: skip


def deep_autoencoder() -> Any:
    """Sana's autoencoder, cut down to a twofold shrinking, which its config calls fourfold."""
    kinds = {
        "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
    }
    return diffusers.AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2, **kinds, encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=[1, 1], downsample_block_type="conv",
        upsample_block_type="interpolate", decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41407,
    ).eval()  # fmt: skip


def sana_transformer(sprint: bool) -> Any:
    return diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=DIM,
        sample_size=32, guidance_embeds=sprint, qk_norm="rms_norm_across_heads" if sprint else None, timestep_scale=1.0,
    ).eval()  # fmt: skip


def unet(**config: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, **config,
    ).eval()  # fmt: skip


# ---------------------------------------------------------------- pipelines

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLIP_LATENTS = {"use_quant_conv": False, "use_post_quant_conv": False}


def flux() -> Any:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=DIM, pooled_projection_dim=DIM, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    ).eval()  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=autoencoder(16, shift_factor=0.1159, scaling_factor=0.3611, **CLIP_LATENTS),
        text_encoder=clip_text(clip), tokenizer=clip, text_encoder_2=t5_text(t5), tokenizer_2=t5, transformer=transformer,
    )  # fmt: skip


def stable_diffusion_3() -> Any:
    clip, other, t5 = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=DIM, caption_projection_dim=DIM, pooled_projection_dim=2 * DIM, out_channels=16,
        pos_embed_max_size=96,
    ).eval()  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(16, shift_factor=0.0609, scaling_factor=1.5305, **CLIP_LATENTS),
        text_encoder=clip_text(clip, projected=True), tokenizer=clip, text_encoder_2=clip_text(other, projected=True),
        tokenizer_2=other, text_encoder_3=t5_text(t5), tokenizer_3=t5,
    )  # fmt: skip


def sana() -> Any:
    tokenizer = gemma_tokenizer()
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=deep_autoencoder(),
        transformer=sana_transformer(sprint=False), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def sana_sprint() -> Any:
    tokenizer = gemma_tokenizer()
    return diffusers.SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=gemma_text(tokenizer), vae=deep_autoencoder(),
        transformer=sana_transformer(sprint=True),
        scheduler=diffusers.SCMScheduler(prediction_type="trigflow", sigma_data=0.5),
    )  # fmt: skip


def stable_diffusion() -> Any:
    clip = clip_tokenizer()
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, steps_offset=1, **NOISE)
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(4, scaling_factor=0.18215), text_encoder=clip_text(clip), tokenizer=clip,
        unet=unet(cross_attention_dim=DIM, attention_head_dim=4), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl_turbo() -> Any:
    clip, other = clip_tokenizer(), clip_tokenizer()
    network = unet(
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=6 * 8 + DIM, cross_attention_dim=2 * DIM,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(4, scaling_factor=0.13025), text_encoder=clip_text(clip), tokenizer=clip,
        text_encoder_2=clip_text(other, projected=True), tokenizer_2=other, unet=network, add_watermarker=False,
        scheduler=diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing", **NOISE),
    )  # fmt: skip


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux": flux, "stable-diffusion-3": stable_diffusion_3, "sana": sana, "sana-sprint": sana_sprint,
    "stable-diffusion": stable_diffusion, "stable-diffusion-xl-turbo": stable_diffusion_xl_turbo,
}  # fmt: skip
CALLS: dict[str, dict[str, Any]] = {  # arguments of a short call of each
    "flux": {"guidance_scale": 3.5, "max_sequence_length": 32},
    "stable-diffusion-3": {"guidance_scale": 4.0, "max_sequence_length": 32},
    "sana": {"guidance_scale": 4.0, "max_sequence_length": 32, "complex_human_instruction": None},
    "sana-sprint": {"guidance_scale": 4.5, "max_sequence_length": 32, "complex_human_instruction": None},
    "stable-diffusion": {"guidance_scale": 5.0},
    "stable-diffusion-xl-turbo": {"guidance_scale": 0.0},
}


def tiny_pipeline(name: str, seed: int = 0) -> Any:
    """A pipeline by name, with weights drawn from `seed`."""
    with seeded(seed):
        pipe = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.tiny_pipelines FOLDER")
    for kind in PIPELINES:
        tiny_pipeline(kind).save_pretrained(Path(sys.argv[1]) / kind)
        print(Path(sys.argv[1]) / kind)
