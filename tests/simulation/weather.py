"""How API, delivery host and store fail: now and then, and for a while. Decided by the world's die, until a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.world import World

POLL = (
    "400",
    "402",
    "404 detail",
    "404 route",
    "409",
    "422",
    "401",
    "403",
    "403 edge",
    "web page",
    "redirect",
    "busy",
    "empty",
    "nothing",
    "another job",
    "429",
    "429 later",
    "500",
    "502 page",
    "503",
    "504 error",
    "late",
    "refused",
    "reset",
)
"""Answers to a poll that are not about its job."""
REFUSED = ("429", "429 later", "503", "refused", "web page", "402", "403 edge")
"""What may happen to a submit before a job is accepted."""
LOST = ("reset", "late", "500", "502 page", "504 error", "cut", "nothing", "empty")
"""What may become of a submit's answer after a job was accepted."""
DELIVERY = ("500", "503", "403", "404", "reset", "cut", "web page", "empty", "refused", "late")
"""What may happen at the delivery host."""
STORE = ("before", "after")
"""Whether the store fails before or after it did what it was asked."""


@dataclass
class Spell:
    """A while of bad weather.

    :param kinds: What happens in it.
    """

    start: float
    end: float
    kinds: tuple[str, ...]


@dataclass
class Weather:
    """What fails, and how often.

    :param until: When all of it ends.
    :param rates: Share of requests that fail, by what they ask: ``poll``, ``refused``, ``lost``, ``delivery``,
        ``store``.
    :param spells: The same, as whiles in which all of them fail.
    """

    world: World
    until: float
    rates: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    spells: dict[str, list[Spell]] = field(default_factory=dict)

    def fault(self, what: str) -> str | None:
        """Return what goes wrong with a request, if anything does."""
        world = self.world
        if world.now >= self.until:
            return None
        kinds: tuple[str, ...] = ()
        for spell in self.spells.get(what, ()):
            if spell.start <= world.now < spell.end:
                kinds = spell.kinds
        if not kinds and world.chance(self.rates.get(what, 0.0)):
            kinds = self.kinds[what]
        if not kinds:
            return None
        kind = kinds[world.rng.randrange(len(kinds))]
        world.counts[f"{what}: {kind}"] += 1
        return kind
