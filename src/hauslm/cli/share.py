"""bundle, verify, export, keys, adapters, push, pack: what leaves the project, and what comes in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hauslm.base.words import N_, say, translate
from hauslm.cli.common import Setting, common

WAYS = ("merge", "gguf", "gguf-lora", "ollama", "vllm", "script")


def _show(setting: Setting, result: Any, *lines: str) -> None:
    """JSON, or the lines and the notes of a result."""
    setting.progress.close()
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for line in lines:
        click.echo(line)
    for note in result.get("notes", []) if isinstance(result, dict) else []:
        click.echo(f"- {note}")


def _table(setting: Setting, rows: list[dict[str, Any]], columns: list[str]) -> None:
    from rich.table import Table

    from hauslm.base.words import number

    table = Table(*columns)
    for row in rows:
        table.add_row(
            *(
                "–" if row.get(c) is None
                else number(row[c]) if isinstance(row[c], float)
                else ", ".join(map(str, row[c])) if isinstance(row[c], list)
                else say("{yes}", yes=row[c]).text() if isinstance(row[c], bool)
                else str(row[c])[:64]
                for c in columns
            )
        )  # fmt: skip
    setting.print(table)


@click.command()
@click.option(
    "--sign",
    metavar="[KEY]",
    is_flag=False,
    flag_value="default",
    help=translate(N_("Sign with a key of hauslm keys (without a name: the one called default).")),
)
@click.option(
    "--accept-memorisation",
    is_flag=True,
    help=translate(N_("Pack although the adapter repeats training text.")),
)
@common
def bundle(setting: Setting, sign: str | None, accept_memorisation: bool) -> None:
    from hauslm import flow

    options: dict[str, Any] = {"accept_memorisation": accept_memorisation}
    if sign is not None:
        options |= {"sign": sign, "passphrase": _passphrase_of(sign)}
    record = flow.run_stage(setting.project(), "bundle", options=options)
    setting.show(record)


def _passphrase_of(key: str) -> str | None:
    """Asked for on a terminal if the key has one and the environment does not give it."""
    import os
    import sys

    from hauslm import flow

    if not flow.keys("encrypted", name=key) or os.environ.get("HAUSLM_KEY_PASSPHRASE"):
        return None
    if not sys.stdin.isatty():
        return None
    return str(click.prompt(say("Passphrase of the key {name}", name=key).text(), hide_input=True))


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--base",
    type=click.Path(file_okay=False, path_type=Path),
    help=translate(N_("Folder of the base model to check against.")),
)
@click.option(
    "--keyring",
    type=click.Path(dir_okay=False, path_type=Path),
    help=translate(N_("Trust the keys in this file alone; unsigned bundles are refused.")),
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help=translate(N_("Public key (PEM) for a signature that does not bring its own.")),
)
@common
def verify(
    setting: Setting, path: Path, base: Path | None, keyring: Path | None, key: Path | None
) -> None:
    from hauslm import flow

    result = flow.verify(path, base=base, keyring=keyring, key=key, remember=True)
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for line in result.get("checks", []):
        click.echo(f"✔ {line}")
    click.echo(say("{path} is sound.", path=str(path)).text())


@click.command()
@click.argument("kind", metavar="[KIND]", required=False)
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option("--to", "way", type=click.Choice(WAYS), help=translate(N_("The way out.")))
@click.option(
    "--type",
    "number_format",
    type=click.Choice(["f32", "f16", "q8_0", "q4_k_m"]),
    default="f16",
    help=translate(N_("Number format of a GGUF file.")),
)
@click.option(
    "--prompts",
    type=click.IntRange(0, 20),
    default=4,
    help=translate(N_("How many prompts are compared in llama.cpp (0: none).")),
)
@common
def export(
    setting: Setting,
    kind: str | None,
    target: Path | None,
    way: str | None,
    number_format: str,
    prompts: int,
) -> None:
    from hauslm import flow

    if way is not None and kind is not None:
        kind, target = way, Path(kind)  # hauslm export --to gguf FOLDER
    kind = way or kind
    if kind is None:
        raise click.UsageError(say("Say which way: {ways}", ways=", ".join(WAYS)).text())
    result = flow.export(
        setting.project(), kind, target, type=number_format, prompts=prompts
    )  # fmt: skip
    _show(setting, result, say("Written: {path}", path=str(result["path"])).text())


@click.command()
@click.argument("action", type=click.Choice(["new", "list", "show", "trust", "export"]))
@click.argument("arguments", metavar="[NAME] [FILE]", nargs=-1)
@click.option(
    "--passphrase",
    "ask",
    is_flag=True,
    help=translate(
        N_("Ask for a passphrase for the new key (or take it from HAUSLM_KEY_PASSPHRASE).")
    ),
)
@common
def keys(setting: Setting, action: str, arguments: tuple[str, ...], ask: bool) -> None:
    from hauslm import flow

    options: dict[str, Any] = {}
    wanted = {"new": ("name",), "show": ("name",), "trust": ("name", "file"), "export": ("file",)}
    names = wanted.get(action, ())
    least = {"trust": 2, "export": 1}.get(action, 0)
    if not least <= len(arguments) <= len(names):
        usage = " ".join(n.upper() for n in names)
        raise click.UsageError(say("Usage: {usage}", usage=f"hauslm keys {action} {usage}").text())
    options |= dict(zip(names, arguments, strict=False))
    if action == "new" and ask:
        options["passphrase"] = _new_passphrase()
    result = flow.keys(action, **options)
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    elif isinstance(result, list):
        _table(setting, result, ["name", "fingerprint", "own"])
    else:
        click.echo(f"{result['name']}  {result['fingerprint']}")
        if "public_key" in result:
            click.echo(result["public_key"].strip())


def _new_passphrase() -> str:
    import os

    given = os.environ.get("HAUSLM_KEY_PASSPHRASE")
    if given:
        return given
    prompt = say("Passphrase for the new key").text()
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=True))


@click.command()
@click.argument("action", type=click.Choice(["list", "compare", "combine", "rollback", "import"]))
@click.argument("arguments", metavar="[ARGUMENTS]", nargs=-1)
@click.option("--name", help=translate(N_("Name of the new adapter.")))
@click.option(
    "--method",
    type=click.Choice(["cat", "svd", "linear"]),
    default="cat",
    help=translate(N_("How PEFT combines: cat is the exact weighted sum.")),
)
@click.option(
    "--settings", is_flag=True, help=translate(N_("Also put the project file of that time back."))
)
@common
def adapters(
    setting: Setting,
    action: str,
    arguments: tuple[str, ...],
    name: str | None,
    method: str,
    settings: bool,
) -> None:
    from hauslm import flow

    project = setting.project()
    options = _adapter_options(action, arguments) | {
        "name": name or (arguments[0] if action == "rollback" and arguments else None),
        "method": method,
        "settings": settings,
    }
    if action == "combine" and not name:
        raise click.UsageError(say("Name the new adapter with --name.").text())
    result = flow.adapters(project, action, **options)
    if setting.as_json:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    elif action == "list":
        _table(setting, result, ["name", "origin", "created", "r", "base", "steps", "verdict"])
        click.echo(say("More with --json, or: hauslm adapters compare A B").text(), err=True)
    elif action == "compare":
        _table(setting, result, ["key", arguments[0], arguments[1], "same"])
    else:
        _show(setting, result, say("{name}: {path}", name=result["name"], path=result["path"]).text())  # fmt: skip


def _adapter_options(action: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    usage = {
        "compare": (2, 2, "A B"),
        "combine": (2, 16, "A=0.7 B=0.3 --name C"),
        "import": (1, 1, "FOLDER|FILE.hlm"),
        "rollback": (0, 1, "[NAME]"),
    }
    low, high, text = usage.get(action, (0, 0, ""))
    if not low <= len(arguments) <= high:
        raise click.UsageError(say("Usage: {usage}", usage=f"hauslm adapters {action} {text}").text())  # fmt: skip
    if action == "compare":
        return {"first": arguments[0], "second": arguments[1]}
    if action == "import":
        return {"source": Path(arguments[0])}
    if action != "combine":
        return {}
    parts = []
    for argument in arguments:
        name, _, weight = argument.partition("=")
        try:
            parts.append((name, float(weight or "1")))
        except ValueError as error:
            raise click.UsageError(say("'{weight}' is no weight.", weight=weight).text()) from error
    return {"parts": parts}


@click.command()
@click.argument("where", type=click.Choice(["folder", "oci", "hf"]))
@click.argument("target")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    help=translate(N_("Another bundle than the project's.")),
)
@click.option(
    "--tag", default="latest", help=translate(N_("Tag in the OCI store (oci; default: latest)."))
)
@click.option("--endpoint", help=translate(N_("Address of a model hub of your own.")))
@click.option(
    "--storage-host",
    multiple=True,
    help=translate(N_("A further host that the hub stores files on; permitted for this call.")),
)
@click.option("--public", is_flag=True, help=translate(N_("Make a new repository public.")))
@click.option(
    "--rights-cleared",
    is_flag=True,
    help=translate(N_("The rightholders of closed documents have agreed.")),
)
@common
def push(
    setting: Setting,
    where: str,
    target: str,
    bundle: Path | None,
    tag: str,
    endpoint: str | None,
    storage_host: tuple[str, ...],
    public: bool,
    rights_cleared: bool,
) -> None:
    from hauslm import flow

    options: dict[str, Any] = {}
    if where == "hf":
        options = {
            "storage_hosts": storage_host,
            "private": not public,
            "rights_cleared": rights_cleared,
        }
        if endpoint:
            options["endpoint"] = endpoint.rstrip("/")
    elif where == "oci":
        options = {"tag": tag}
    result = flow.push(setting.project(), where, target, bundle, **options)
    _show(setting, result, say("Written: {path}", path=str(result["path"])).text())


@click.command()
@click.option(
    "--for-offline",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help=translate(N_("The new folder: wheels, lock, base model, bundle, instructions.")),
)
@click.option("--without-base", is_flag=True, help=translate(N_("Leave the base model out.")))
@common
def pack(setting: Setting, target: Path, without_base: bool) -> None:
    from hauslm import flow

    result = flow.pack(setting.project(), target, with_base=not without_base)
    _show(
        setting,
        result,
        say(
            "Written: {path} ({wheels} wheels, {size:,} MiB, Python {python}, {platform})",
            path=result["path"], wheels=result["wheels"], size=result["bytes"] / 2**20,
            python=result["python"], platform=result["platform"],
        ).text(),
    )  # fmt: skip
