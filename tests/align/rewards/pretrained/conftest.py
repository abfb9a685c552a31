"""Tiny networks with random weights, made and saved here: nothing is fetched. And images on whole levels, as files hold
them."""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from PIL import Image

SIDE = 24  # of the images that the networks see
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "blue", "cat", "dog", "on", "red", "the", "two")
PROMPTS = ["a red cat", "two dogs on the grass", "a blue, blue dog", "x"]


@pytest.fixture
def prompts():
    return list(PROMPTS)


@pytest.fixture
def images():
    """Makes images `(N, 3, H, W)` in [-1, 1] of random levels, with as much low as high frequency."""

    def make(n=4, height=SIDE, width=SIDE, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 2, width)
        phases = torch.rand(n, 3, 1, 1, generator=generator) * 6
        smooth = torch.sin(rows + columns + phases) * 100 + 128
        noise = torch.randn(n, 3, height, width, generator=generator) * 25
        return (smooth + noise).round().clamp(0, 255).to(dtype) / 127.5 - 1

    return make


@pytest.fixture
def pictures():
    """Images in [-1, 1] as Pillow has them."""

    def make(images):
        levels = ((images + 1) * 127.5).round().to(torch.uint8)
        return [Image.fromarray(level.permute(1, 2, 0).numpy()) for level in levels]

    return make


def randomise(network, seed=0):
    """Weights that make a network tell images and texts apart, from a seed of their own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("logit_scale"):
                weight.fill_(4.0)
            elif "norm" in name.lower() and name.endswith("weight"):
                weight.copy_(1 + 0.2 * torch.randn(weight.shape, generator=generator))
            else:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def save_clip_tokenizer(folder):
    """One token a byte, and one a byte that ends a word."""
    from transformers import CLIPTokenizer

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(code) for code in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    tokens = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


@pytest.fixture(scope="session")
def clip():
    """A tiny CLIP network."""
    from transformers import CLIPConfig, CLIPModel

    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "hidden_act": "gelu"}
    text = {**sizes, **ends, "vocab_size": 514, "num_attention_heads": 1, "max_position_embeddings": 20}
    image = {**sizes, "num_attention_heads": 16, "image_size": SIDE, "patch_size": 8}
    settings = CLIPConfig(text_config=text, vision_config=image, projection_dim=32)
    return randomise(CLIPModel(settings))


@pytest.fixture(scope="session")
def image_processor():
    """That of the tiny networks, which works on Pillow's images."""
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    return kind(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@pytest.fixture(scope="session")
def clip_folder(clip, image_processor, tmp_path_factory):
    """The tiny CLIP network, saved whole."""
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder)
    save_clip_tokenizer(folder)
    image_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A tiny tokenizer of BERT's kind."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    made = BertTokenizer.from_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip():
    """Tiny towers of BLIP and a head, by name."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 1}
    image = BlipVisionConfig(**sizes, image_size=SIDE, patch_size=8, layer_norm_eps=1e-6)
    text = BlipTextConfig(**sizes, vocab_size=len(WORDS), encoder_hidden_size=64, max_position_embeddings=40)
    return {
        "image": randomise(BlipVisionModel(image), 1),
        "text": randomise(BlipTextModel(text, add_pooling_layer=False), 2),
        "head": tiny_head(64),
    }


def tiny_head(width):
    layers = [(width, 16), (16, 12), (12, 8), (8, 4), (4, 1)]
    head = torch.nn.Sequential(*(torch.nn.Identity() for _ in range(8)))
    for number, (inputs, outputs) in zip((0, 2, 4, 6, 7), layers, strict=True):
        head[number] = torch.nn.Linear(inputs, outputs)
    return randomise(head, 3)


@pytest.fixture(scope="session")
def head():
    """A tiny head for the tiny CLIP network."""
    return tiny_head(32)
