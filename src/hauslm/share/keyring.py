"""hauslm keys: make one, list, show, trust, hand a keyring round. Actions over `keys.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hauslm.base.errors import DataError, UsageError, did_you_mean
from hauslm.base.words import say
from hauslm.share import keys, sign
from hauslm.share.source import opened, read
from hauslm.share.verify import verify

ACTIONS = ("new", "list", "show", "trust", "export")


def answer(action: str, **options: Any) -> Any:
    """What `hauslm keys ACTION` prints: a row or a list of rows. H740-H749."""
    if action == "new":
        return keys.new(options.get("name") or keys.DEFAULT, options.get("passphrase")).row()
    if action == "list":
        return [k.row() for k in keys.keyring()]
    if action == "show":
        return _show(options.get("name") or keys.DEFAULT)
    if action == "trust":
        return _trust(options["name"], Path(options["file"]))
    if action == "export":
        return [k.row() for k in keys.export(Path(options["file"]))]
    if action == "encrypted":
        return keys.is_encrypted(options.get("name") or keys.DEFAULT)
    raise UsageError(
        "H740",
        say("There is no action '{name}'.", name=action),
        next_step=did_you_mean(action, ACTIONS),
    )


def _show(name: str) -> dict[str, Any]:
    for known in keys.keyring():
        if known.name == name:
            return known.row() | {"public_key": known.pem}
    raise UsageError(
        "H742",
        say("There is no key called '{name}' here.", name=name),
        where=str(keys.folder()),
        next_step=did_you_mean(name, [k.name for k in keys.keyring()]),
    )


def _trust(name: str, file: Path) -> dict[str, Any]:
    """Trust the key in a .pub file, or the one that signed a bundle (whose signature must hold)."""
    if not file.exists():
        raise DataError(
            "H745", say("There is no such file."), where=str(file), next_step=say("Check the path.")
        )
    if file.suffix == ".hlm" or file.is_dir():
        verify(file)
        with opened(file) as source:
            if sign.PUBLIC_KEY not in source.names() or sign.SIGNATURE not in source.names():
                raise DataError(
                    "H745", say("The bundle is not signed."), where=str(file),
                    next_step=say("Give the .pub file of the signer."),
                )  # fmt: skip
            pem = read(source, sign.PUBLIC_KEY)
    else:
        pem = file.read_bytes()[: 1 << 16]
    return keys.trust(name, pem, file).row()
