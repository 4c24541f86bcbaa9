"""Reactions and units of rate constants as text."""

from __future__ import annotations

from collections.abc import Mapping

from metabolismgraph.system.network import Reaction


def written_equation(reaction: Reaction) -> str:
    """A reaction as text, such as A + B -> 2 B, with the substrates of its rate law on the left."""
    # A species can be consumed without being in the rate law, or beyond its order; the left side includes it.
    left = {
        s: max(reaction.substrates.get(s, 0.0), -reaction.net.get(s, 0.0))
        for s in dict.fromkeys((*reaction.substrates, *reaction.net))
    }
    products = {s: amount + reaction.net.get(s, 0.0) for s, amount in left.items()}
    return f"{_side(left)} -> {_side(products)}"


def written_unit(order: float) -> str:
    """The unit of a rate constant, in the units of the data: concentration^(1-order)/time.

    Example:
        >>> written_unit(1.0), written_unit(2.0), written_unit(0.0)
        ('1/time', '1/(concentration time)', 'concentration/time')
    """
    power = 1 - order
    simple = {0: "1/time", 1: "concentration/time", -1: "1/(concentration time)"}
    if power in simple:
        return simple[int(power)]
    return f"concentration^{power:g}/time" if power > 0 else f"1/(concentration^{-power:g} time)"


def _side(amounts: Mapping[str, float]) -> str:
    return " + ".join(f"{'' if a == 1 else f'{a:g} '}{s}" for s, a in amounts.items() if a) or "nothing"
