"""The command that serves a store as a web application."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from phononbench_flows.cli.cluster import LaunchpadOption
from phononbench_flows.cli.common import (
    DeviceOption,
    ProtocolOption,
    app,
    checked_set_name,
    checked_target,
    chosen_protocol,
    err,
    out,
    sentences,
    stop,
)
from phononbench_flows.cli.opening import mongo_spec, opened_launchpad, told_if_slow
from phononbench_flows.cli.results import Where, spec_of
from phononbench_flows.harmless import harmless
from phononbench_flows.protocol import DEFAULT_PROTOCOL

TOKEN_VARIABLE = "PHONONBENCH_SERVE_TOKEN"  # noqa: S105 - its name


@app.command()
def serve(
    where: Where = None,
    *,
    host: Annotated[str, typer.Option(help="Address to listen at; any but one of this machine asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8321,
    potential: Annotated[
        str | None, typer.Option(help="Potential that judges uploads; without it none are taken.")
    ] = None,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
    device: DeviceOption = "auto",
    set_name: Annotated[str, typer.Option("--set", help="Name of the set that uploads become.")] = "uploads",
    folder: Annotated[
        Path | None,
        typer.Option(help="Where uploads and their queue are kept; `service` in the directory of results without it."),
    ] = None,
    max_atoms: Annotated[int, typer.Option(min=1, help="Atoms in the cell of an upload, at most.")] = 60,
    max_crystals: Annotated[int, typer.Option(min=1, help="Crystals taken from an uploaded file.")] = 20,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Size of an upload.")] = 2.0,
    max_minutes: Annotated[
        float, typer.Option(min=0.01, help="Time that an upload is computed for; with --cluster, read for.")
    ] = 30.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Uploads that may wait.")] = 100,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="Hand uploads out to a cluster's workers, as `submit` does; for mongo:DATABASE."
        ),
    ] = False,
    launchpad_file: LaunchpadOption = None,
) -> None:
    """Serve the results as a web application: explorer, pages of crystals, uploads and a JSON API."""
    if cluster and potential is None:
        stop("--cluster hands uploads out, and without --potential none are taken")
    if launchpad_file is not None and not cluster:
        stop("--launchpad says where uploads are handed out to: it goes with --cluster")
    chosen_protocol(protocol)
    checked_set_name(set_name)
    checked_target(folder, folder=True)
    with sentences():
        import uvicorn

        from phononbench_flows.service.app import create_app
        from phononbench_flows.service.settings import LOCAL, Judging, Limits, Settings

        spec = mongo_spec(where) if cluster else spec_of(where)
        token = os.environ.get(TOKEN_VARIABLE) or (None if host in LOCAL else secrets.token_urlsafe(24))
        settings = Settings(
            spec=spec,
            folder=(folder or _folder(spec)).absolute(),
            token=token,
            hosts=LOCAL if host in LOCAL else None,
            judging=None
            if potential is None
            else Judging(
                potential,
                protocol,
                device,
                set_name=set_name,
                cluster=cluster,
                launchpad=str(launchpad_file.absolute()) if launchpad_file else None,
            ),
            limits=Limits(int(max_megabytes * 1e6), max_atoms, max_crystals, max_waiting, max_minutes),
        )
        if settings.judging is not None:
            from phononbench_flows.potentials import check_asked

            check_asked(settings.judging.potential, device)
        if cluster:
            _require_cluster(launchpad_file, spec, set_name)
        application = create_app(settings)
        listening = _listening(host, port)
    # Asked for port 0, the system has chosen one.
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    out.print(f"serving at {address}{f'?token={token}' if token else ''}", soft_wrap=True)
    err.print("Ctrl-C ends the server; uploads that wait go on when it is started again", style="dim", soft_wrap=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning", server_header=False)).run(sockets=[listening])


def _require_cluster(launchpad_file: Path | None, spec: dict[str, str], set_name: str) -> None:
    """Stop where uploads cannot be handed out, or what becomes of them cannot be given back."""
    lp = opened_launchpad(launchpad_file, spec)
    from phononbench_flows.service.handing_out import require_cluster

    with told_if_slow("the LaunchPad"):
        require_cluster(lp, set_name)
    lp.connection.close()


def _listening(host: str, port: int) -> socket.socket:
    """A socket at an address; what is wrong with the address ends the command."""
    try:
        kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=kind)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "that is no name of a host"
        stop(f"cannot listen at {harmless(host)[:80]}, port {port}: {why}")


def _folder(spec: dict[str, str]) -> Path:
    return Path(spec["path"]) / "service" if spec["kind"] == "embedded" else Path("phononbench-service")
