"""`python -m diamond`, which `torchrun` and `accelerate launch` need: `torchrun --nproc_per_node 2 -m diamond train ...`."""

from .cli import main

main()
