"""`python -m diamond.cli`, which `accelerate launch -m diamond.cli` needs."""

from . import main

main()
