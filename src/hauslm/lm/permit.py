"""May these documents go to that host? A `Permit`, made from the scenario's answers and the rules.

A permit is the only key to `lm/remote.py`, and `permit_for` is the only place that makes one: a
missing permit is a type error and a refused call, not a sentence in a policy page. The rules are
those of the decision (`catalog/facts/rules`); an unknown answer counts as the stricter case.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from hauslm.base.errors import RefusedError
from hauslm.base.files import canonical_json, sha256_bytes
from hauslm.base.words import Sentence, say
from hauslm.catalog import load
from hauslm.catalog.schema import Rule
from hauslm.scenario import Scenario

_FIELD = "scenario.data.may_leave"
_MAKER = object()


class Permit:
    """The documents of one scenario may go to `host`. Only `permit_for` makes these."""

    __slots__ = ("answers_sha256", "host")

    host: str
    answers_sha256: str  # of the answers it was given for

    def __init__(self, host: str, answers_sha256: str, _maker: object = None) -> None:
        if _maker is not _MAKER:
            raise RefusedError(
                "H811",
                say("A permit can only be made from the answers in the project file."),
                next_step=say("Call permit_for(scenario, host)."),
            )
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "answers_sha256", answers_sha256)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Permit does not change ({name})")

    def __repr__(self) -> str:
        return f"Permit({self.host!r})"


def is_this_machine(host: str) -> bool:
    """localhost and loopback addresses: nothing leaves."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def permit_for(scenario: Scenario, host: str) -> Permit:
    """A permit for `host`, or RefusedError H811 that names the rule and the answer it rests on.

    `host` is a name or address without scheme or port. This machine is always permitted: nothing
    leaves it. An entry of `scenario.options` whose id is the host tells what is known of it.
    """
    answers = sha256_bytes(canonical_json(scenario.scenario.data.model_dump(mode="json")))
    if is_this_machine(host):
        return Permit(host, answers, _MAKER)
    if scenario.scenario.data.may_leave != "yes":
        raise _refused(
            "D1" if scenario.scenario.data.may_leave == "no" else "D2",
            say("the documents have not been released ({field})", field=_FIELD),
            host,
        )
    traits = _traits(scenario, host)
    for rule in load.rules():
        if _stops(rule) and _applies(rule, scenario, traits):
            raise _refused(rule.id, rule.text.text(), host)
    return Permit(host, answers, _MAKER)


def _stops(rule: Rule) -> bool:
    """Blocks, and missing permissions of others (the release itself is `may_leave`)."""
    missing = rule.effect == "REQUIRE" and rule.severity == "high"
    return "cloud" in rule.applies_to and (rule.effect == "BLOCK" or missing)


def _traits(scenario: Scenario, host: str) -> Mapping[str, str]:
    """What is known of the host; everything else is 'unknown'."""
    data = scenario.scenario.data
    entry = next((o for o in scenario.scenario.options if o.id == host), None)
    eu = entry.eu if entry else "unknown"
    contract = "yes" in (data.processor_contract, entry.processor_contract if entry else "unknown")
    return {
        "third_party": "no" if entry and entry.under_own_contract else "yes",
        "eu": eu,
        "transfer_ground": "yes" if eu == "yes" else "unknown",
        "retention": "within" if data.max_retention_days is None else "unknown",
        # A processor acts on instructions only (GDPR 28(3)(a)): no training of its own.
        "trains_on_inputs": "no" if contract else "unknown",
        "tuned": "no",
        "us_provider": "unknown",
    }


def _applies(rule: Rule, scenario: Scenario, traits: Mapping[str, str]) -> bool:
    return all(_answer(path, scenario, traits) in wanted for path, wanted in rule.when.items())


def _answer(path: str, scenario: Scenario, traits: Mapping[str, str]) -> str:
    head, _, rest = path.partition(".")
    if head == "option":
        return traits.get(rest, "unknown")
    node: Any = scenario.scenario
    for part in rest.split("."):
        node = getattr(node, part)
    return {True: "yes", False: "no"}.get(node, str(node)) if isinstance(node, bool) else str(node)


def _refused(rule: str, why: Sentence | str, host: str) -> RefusedError:
    return RefusedError(
        "H811",
        say("Nothing may be sent to {host}: rule {rule}, {why}", host=host, rule=rule, why=why),
        next_step=say(
            "Clear it with data protection or the rightholders, then answer it in hauslm.yaml; "
            "or stay with the local model."
        ),
    )
