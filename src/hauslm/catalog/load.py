"""Where are the facts? `facts/<kind>/<id>.yaml`, one file per thing, the file name is the id.

The folder is the registry: a file put there is found. Files are read when asked for and kept for
the life of the process; asking for one id reads one file. An unknown id is a usage error (H120)
that names the nearest ones, a malformed file a data error (H390-H397) that names file and key.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from hauslm.base.errors import DataError, UsageError, did_you_mean
from hauslm.base.words import say
from hauslm.catalog.build import BUILDERS
from hauslm.catalog.reader import parse
from hauslm.catalog.schema import Gpu, Model, Offer, Rule, Tariff, Thing

Kind = Literal["models", "gpus", "offers", "tariffs", "rules"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FACTS = Path(__file__).parent / "facts"


@cache
def ids(kind: Kind) -> tuple[str, ...]:
    """The ids of a kind, sorted: the names of its files."""
    return tuple(sorted(p.stem for p in (FACTS / kind).glob("*.yaml")))


def build(kind: Kind, identity: str, raw: bytes, file: str) -> Thing:
    """The thing that a fact file's bytes describe; H390-H396 if they are not in order."""
    node = parse(raw, file)
    thing = BUILDERS[kind](node, identity)
    stated = node.value.get("id")
    if stated is not None and stated != identity:
        raise DataError(
            "H396",
            say("The id '{id}' differs from the file name.", id=str(stated)),
            where=file,
            next_step=say("Rename the file to {name}.yaml or leave the id out.", name=str(stated)),
        )
    return cast(Thing, thing)


@cache
def _read(kind: Kind, identity: str) -> Any:
    path = FACTS / kind / f"{identity}.yaml"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            "H397",
            say("The fact file cannot be read ({reason}).", reason=str(error.strerror)),
            where=f"{kind}/{path.name}",
        ) from error
    return build(kind, identity, raw, f"{kind}/{path.name}")


def _one(kind: Kind, identity: str) -> Any:
    known = ids(kind)
    if identity not in known:
        raise UsageError(
            "H120",
            say("The catalog has no entry '{name}' under {kind}.", name=identity, kind=kind),
            next_step=did_you_mean(identity, known),
        )
    return _read(kind, identity)


def _all(kind: Kind) -> tuple[Any, ...]:
    return tuple(_read(kind, identity) for identity in ids(kind))


def things(kind: Kind) -> tuple[Thing, ...]:
    """Everything of a kind, sorted by id."""
    return _all(kind)


def thing(kind: Kind, identity: str) -> Thing:
    """One thing of a kind; H120 if there is none of that id."""
    return cast(Thing, _one(kind, identity))


def models() -> tuple[Model, ...]:
    """All models, open and API, sorted by id."""
    return _all("models")


def model(identity: str) -> Model:
    """One model by its catalog id; H120 if there is none."""
    return cast(Model, _one("models", identity))


def gpus() -> tuple[Gpu, ...]:
    """All GPUs, sorted by id."""
    return _all("gpus")


def gpu(identity: str) -> Gpu:
    """One GPU by its catalog id; H120 if there is none."""
    return cast(Gpu, _one("gpus", identity))


def offers() -> tuple[Offer, ...]:
    """All offers of rented GPUs, sorted by id."""
    return _all("offers")


def offer(identity: str) -> Offer:
    """One offer; H120 if there is none."""
    return cast(Offer, _one("offers", identity))


def tariffs() -> tuple[Tariff, ...]:
    """All tariffs and rates, sorted by id; some are known gaps without a value."""
    return _all("tariffs")


def tariff(identity: str) -> Tariff:
    """One tariff; H120 if there is none."""
    return cast(Tariff, _one("tariffs", identity))


def rules() -> tuple[Rule, ...]:
    """All rules, sorted by id."""
    return _all("rules")


def rule(identity: str) -> Rule:
    """One rule; H120 if there is none."""
    return cast(Rule, _one("rules", identity))
