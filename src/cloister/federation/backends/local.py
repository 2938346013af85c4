"""A whole job in one process: NVFlare's own runners, a thread per site, no network, no child process.

This is the back end of demonstrations, notebooks and tests, and of several parties on one machine. It
isolates nothing: all parties share one memory. What a party enforces, its own node enforces, here as
elsewhere.

Rules:
- everything NVFlare writes goes below one new directory, removed at the end;
- `run` returns or raises only after every thread of the job has ended; a site's thread that will not end (its
  code neither returns nor asks whether to stop) is named in the error, and cannot keep the process from
  exiting;
- a site sees the folder as it lies on disk before anything is built from it; one that refuses it is absent;
- the airlock filter is a filter of the site as well as of the job, so no job folder can leave it out.

Source: nvflare 2.9.0, ServerRunner.run and ClientRunner.run; this leaves out their waiting for a network.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.client.client_json_config import ClientJsonConfigurator
from nvflare.private.fed.server.server_json_config import ServerJsonConfigurator
from nvflare.private.privacy_manager import Scope

from cloister.core.errors import CloisterError
from cloister.core.files import storage_error
from cloister.federation.backends.base import FederationResult, require_complete, run_to_the_end
from cloister.federation.backends.record import RecordedHub, RecordedSite, RunRecord
from cloister.federation.compile import CLIENT_FILE, SERVER_FILE, JobFolder
from cloister.federation.errors import FederationError, JobError
from cloister.federation.events import EventSink, ignore_events
from cloister.federation.flare.filter import AirlockFilter
from cloister.federation.flare.local_engines import LocalClientEngine, LocalServerEngine
from cloister.federation.flare.local_process import BUILDING, borrowed_process
from cloister.federation.flare.messages import HUB_NODE, SITE_NODE
from cloister.federation.job import FederationJob
from cloister.federation.node import Abort, HubNode, SiteNode

_IDLE_SECONDS = 0.05
_WATCH_SECONDS = 0.02


class LocalBackend:
    """Runs jobs in this process.

    Args:
        directory: an existing directory; each run uses and removes one of its own below it.
        stop_seconds: how long a thread may take to end after the job ended.
    """

    def __init__(self, directory: Path, stop_seconds: float = 10.0) -> None:
        self._directory = directory
        self._stop_seconds = stop_seconds

    def run(
        self,
        job: FederationJob,
        folder: JobFolder,
        hub: HubNode,
        sites: Mapping[str, SiteNode],
        on_event: EventSink = ignore_events,
        abort: Abort = run_to_the_end,
    ) -> FederationResult:
        """See `Backend.run`."""
        if unknown := sorted(set(sites) - set(job.clients)):
            raise JobError("federation.unknown_site", f"the job does not name these sites: {unknown}")
        record = RunRecord(job, on_event)
        try:
            root = Path(tempfile.mkdtemp(prefix="nvflare-", dir=self._directory))
        except OSError as error:
            raise storage_error(error, self._directory) from None
        try:
            with borrowed_process():
                run = _LocalRun(job, folder, root, RecordedHub(hub, record), sites, record)
                run.to_its_end(abort, self._stop_seconds)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        result = record.result()
        require_complete(job, result, record.start)
        return result


class _LocalRun:
    """One job's engines and threads."""

    def __init__(
        self,
        job: FederationJob,
        folder: JobFolder,
        root: Path,
        hub: RecordedHub,
        sites: Mapping[str, SiteNode],
        record: RunRecord,
    ) -> None:
        self._record = record
        _lay_out(folder, root)
        with BUILDING:
            self._server = _build_server(job, root, hub)
            arrived = JobFolder.read(root)
            present = [RecordedSite(sites[name], record) for name in job.clients if name in sites]
            self._clients = [
                _build_client(job, root, site, self._server) for site in present if _accepts(site, arrived)
            ]
        self._threads = [
            threading.Thread(target=self._server.runner.run, name="hub", daemon=True),
            *(
                threading.Thread(target=self._site, args=(client,), name=f"site-{client.name}", daemon=True)
                for client in self._clients
            ),
        ]

    def to_its_end(self, abort: Abort, stop_seconds: float) -> None:
        """Runs all threads; raises what ended the job early."""
        aborted = False
        for client in self._clients:
            with client.new_context() as fl_ctx:
                fl_ctx.set_prop(
                    ReservedKey.RUN_ABORT_SIGNAL, client.runner.run_abort_signal, private=True, sticky=True
                )
                client.runner.fire_event(EventType.START_RUN, fl_ctx)
        try:
            for thread in self._threads:
                thread.start()
            while self._threads[0].is_alive() and not aborted:
                aborted = self._record.error is not None or abort()
                self._threads[0].join(_WATCH_SECONDS)
        finally:
            stuck = self._stop(stop_seconds)
        error = self._record.error
        if error is None and aborted:
            error = FederationError("federation.aborted", "the job was stopped before its end")
        if error is None and stuck:
            error = FederationError("federation.site_stuck", f"{len(stuck)} threads of the job did not end")
        if error is not None:
            raise _with_details(error, [*self._record.site_reasons(), *stuck])

    def _stop(self, seconds: float) -> list[str]:
        """Ends every thread and returns a line for each that would not."""
        if self._threads[0].is_alive():
            with self._server.new_context() as fl_ctx:
                self._server.runner.abort(fl_ctx)
        for client in self._clients:
            client.runner.run_abort_signal.trigger(True)
        monitors = [
            flow.controller.communicator._task_monitor for flow in self._server.runner.config.workflows
        ]
        deadline = time.monotonic() + seconds
        alive = []
        for thread in [*self._threads, *monitors]:
            if thread.ident is None:
                continue
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                alive.append(f"{thread.name}: its thread did not end")
        return alive

    def _site(self, engine: LocalClientEngine) -> None:
        runner = engine.runner
        while not runner.run_abort_signal.triggered:
            postings = self._server.postings
            with engine.new_context() as fl_ctx:
                _, worked = runner.fetch_and_run_one_task(fl_ctx)
            if not worked:
                self._server.wait_for_tasks(postings, _IDLE_SECONDS)
        runner.end_run_events_sequence()


def _lay_out(folder: JobFolder, root: Path) -> None:
    """Writes what NVFlare reads. The files live as long as the run, so they are not made durable.

    Raises:
        StorageError: no space, no permission.
    """
    try:
        _write_files(folder, root)
    except OSError as error:
        raise storage_error(error, root) from None


def _write_files(folder: JobFolder, root: Path) -> None:
    for name in ("startup", "local"):
        (root / name).mkdir()
    for relative, data in folder.files.items():
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _with_details(error: BaseException, details: list[str]) -> BaseException:
    if isinstance(error, FederationError):
        return type(error)(error.code, error.message, error.hint, details=(*error.details, *details))
    return error


def _accepts(site: RecordedSite, folder: JobFolder) -> bool:
    try:
        site.accept_folder(folder)
    except CloisterError:
        return False
    return True


def _build_server(job: FederationJob, root: Path, hub: RecordedHub) -> LocalServerEngine:
    workspace = Workspace(str(root), "server")
    arguments = argparse.Namespace(job_id=job.job_id, workspace=str(root))
    configurator = ServerJsonConfigurator(workspace, str(root / SERVER_FILE), arguments, str(root))
    configurator.configure()
    return LocalServerEngine(job.job_id, workspace, configurator.runner_config, {HUB_NODE: hub})


def _build_client(
    job: FederationJob, root: Path, node: RecordedSite, server: LocalServerEngine
) -> LocalClientEngine:
    workspace = Workspace(str(root), node.site)
    arguments = argparse.Namespace(
        job_id=job.job_id, workspace=str(root), client_name=node.site, sp_scheme="local", sp_target="hub"
    )
    configurator = ClientJsonConfigurator(workspace, str(root / CLIENT_FILE), arguments, str(root))
    configurator.configure()
    site_policy = Scope()
    site_policy.set_name("site")
    site_policy.add_task_result_filter(AirlockFilter(), FilterKey.OUT)
    properties = {SITE_NODE: node, FLContextKey.SCOPE_OBJECT: site_policy}
    return LocalClientEngine(node.site, job.job_id, workspace, configurator.runner_config, properties, server)
