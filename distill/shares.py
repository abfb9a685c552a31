r"""How each loss spends a batch.

A part of it goes to the diagonal, which says which flow the map shall follow; the rest to what must hold off it. A
Lagrangian identity extends :math:`X_{s,r}` forwards in :math:`r` from :math:`X_{s,s}`, so that one start :math:`s = 0`
teaches all that one-call draws and early stops need. An Eulerian one extends it backwards in :math:`s` from
:math:`X_{r,r}`: it needs pairs all over the triangle, and one end :math:`r = 1` teaches one-call draws. The semigroup
passes from short hops to long ones, so that it needs both.
"""

from __future__ import annotations

from typing import NamedTuple

from diamond.validation import check_choice, check_share

__all__ = ["LOSSES", "Shares", "shares_of", "usual_loss"]


class Shares(NamedTuple):
    """The share of a batch off the diagonal, and of that the shares on the edges `s = 0` and `r = 1`; the rest lies
    anywhere in the triangle `s < r`."""

    off_diagonal: float
    from_zero: float
    to_one: float


LOSSES = {
    "lsd": Shares(0.5, 0.8, 0.0),
    "esd": Shares(0.5, 0.0, 0.5),
    "psd": Shares(0.5, 0.5, 0.0),
    "meanflow": Shares(0.5, 0.0, 0.5),
    "trajectory": Shares(0.9, 0.8, 0.0),
}


def usual_loss(supervision: str) -> str:
    """The loss that made the best map for the same work in `examples/benchmarks/distillation.py`, of those that the
    supervision allows."""
    return "lsd" if supervision == "data" else "trajectory"


def shares_of(loss: str, **given: float | None) -> Shares:
    """The shares of `loss`, where `given` leaves them out or has None for them.

    Raises:
        ValueError: an unknown loss; a share outside [0, 1]; edges that exceed 1 together; or an edge that the loss
            cannot use.
    """
    usual = LOSSES[check_choice("loss", loss, LOSSES)]
    chosen = {name: check_share(name, share) for name, share in given.items() if share is not None}
    if chosen.get("to_one") and loss in ("lsd", "trajectory"):
        raise ValueError(f"to_one: got {chosen['to_one']} with loss={loss!r}, which has no such pairs, expected 0")
    for edge, other in (("from_zero", "to_one"), ("to_one", "from_zero")):
        if edge in chosen and given.get(other) is None:  # an edge asked for takes from the other's usual share
            chosen[other] = min(getattr(usual, other), 1 - chosen[edge])
    shares = usual._replace(**chosen)
    if shares.from_zero + shares.to_one > 1:
        raise ValueError(
            f"from_zero, to_one: got {shares.from_zero} and {shares.to_one}, expected shares of at most 1 together"
        )
    return shares
