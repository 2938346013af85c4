"""``pic start`` and ``pic demo``: the brain service, and a first look at what all of it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json
from cloister.cli.pic_options import Config, Directory, settings_of

if TYPE_CHECKING:
    from cloister.immune.settings import ImmuneSettings
    from cloister.immune.supervisor import WatchdogStatus


def attach(app: typer.Typer) -> None:
    """Attach the commands."""
    app.command(
        "start",
        help="Start the brain service: it takes the telemetry of other processes in. Ctrl-C or SIGTERM stop "
        "it. With --watchdog a second process looks after it, starts it again, and compares its code: with "
        "what was released, where a release key is named, else with what it was at this start.",
        epilog="Examples:  pic start --directory /var/lib/pic   ·   pic start --port 9000 --watchdog",
    )(_start)
    app.command(
        "demo",
        help="Learn, attack, block, explain: a small service under attack on this machine, in a minute.",
        epilog="Example:  pic demo --seed 7",
    )(_demo)


def _start(
    config: Config = None,
    directory: Directory = None,
    port: Annotated[
        int | None, typer.Option("--port", show_default="8443", help="0 takes a free one.")
    ] = None,
    watchdog: Annotated[
        bool, typer.Option("--watchdog", help="Look after it from a second process.")
    ] = False,
    code_manifest: Annotated[
        Path | None,
        typer.Option(
            "--code-manifest", metavar="FILE", help="What its code has to be: a list of `pic code sign`."
        ),
    ] = None,
    release_key: Annotated[
        Path | None,
        typer.Option("--release-key", metavar="KEY", help="Whose list counts: a public key, PEM."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    if (code_manifest is None) != (release_key is None) or (code_manifest is not None and not watchdog):
        raise typer.BadParameter(
            "--code-manifest and --release-key go together, with --watchdog: it does the looking"
        )
    settings = settings_of(
        config, storage__directory=None if directory is None else str(directory), api__port=port
    )
    if watchdog:
        return _watched(settings, config, code_manifest, release_key, as_json=as_json)
    from cloister.immune.starting import serve_brain

    def announce(url: str) -> None:
        kept = settings.storage.directory
        said = json.dumps({"listening": url}) if as_json else f"The brain listens at {url}; it keeps {kept}."
        print(said, flush=True)

    serve_brain(settings, announce)
    return 0


def _watched(
    settings: ImmuneSettings,
    config: Path | None,
    code_manifest: Path | None,
    release_key: Path | None,
    *,
    as_json: bool,
) -> int:
    from cloister.immune.starting import Release, watch_over
    from cloister.immune.watchdog import Mode

    words = [sys.executable, "-m", "cloister.cli.pic", "start"]
    words += ["--port", str(settings.api.port)]
    if config is not None:
        words += ["--config", str(config)]
    if settings.storage.directory is not None:
        words += ["--directory", settings.storage.directory]
    release = None
    if code_manifest is not None and release_key is not None:
        release = Release(code_manifest, release_key)
    if as_json:
        words.append("--json")

    def announce(said: WatchdogStatus) -> None:
        if said.mode is Mode.WATCHING:
            return
        if as_json:
            print(json.dumps({"watchdog": said.mode.value, "reason": said.reason}), flush=True)
        else:
            print(f"{said.mode.value}: {said.reason}; no brain runs. End it:  pic watchdog reset", flush=True)

    watch_over(settings, words, release, announce)
    return 0


def _demo(
    seed: Annotated[int, typer.Option("--seed", help="Of the ordinary calls and of the attack.")] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.pic_demo import show

    return show(seed, as_json=as_json)
