"""The judges that ship with the package, made again: `python examples/recipes/judges.py --root data`.

Each is trained on the training split of its data and measured on the held-out one; a file of float16 weights and a line
of figures come out. On one core digits take seconds, mnist and fashion-mnist some minutes, cifar10 40 minutes.
"""

from __future__ import annotations

import argparse
import json
import time

from pathlib import Path

from diamond import judges
from diamond.data import load_data

RECIPES = {
    "digits": {"epochs": 60, "batch": 64, "width": 32},
    "mnist": {"epochs": 6},
    "fashion-mnist": {"epochs": 10},
    "cifar10": {"epochs": 18, "width": 20, "depth": 2, "flip": True},
}


def make(name: str, out: Path, root: Path, seed: int = 0) -> dict:
    """Trains the judge of that name, writes it to `out`, and returns the figures of the file as it is read again."""
    started = time.perf_counter()
    train, held_out = (load_data(name, split=split, root=root) for split in ("train", "held-out"))
    judge = judges.train_judge(train, held_out, name=name, seed=seed, progress=True, **RECIPES[name])
    path = out / f"{name}.safetensors"
    judge.save(path)
    rounded = judges.accuracy(judges.load(path), held_out)
    return {
        **judge.metadata, "accuracy as stored": rounded, "bytes": path.stat().st_size,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the judges that ship with the package.")
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of mnist, fashion-mnist and cifar10")
    parser.add_argument("--out", type=Path, default=Path(judges.__file__).parent, help="folder for the files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.names:
        if name not in RECIPES:
            parser.error(f"names: got {name!r}, expected of {', '.join(RECIPES)}")
        print(json.dumps(make(name, given.out, given.root, given.seed)), flush=True)


if __name__ == "__main__":
    main()
