"""From a `FederationJob` to the NVFlare job folder that runs it.

The folder is plain JSON and names only classes of the installed package, so no code travels with a job: it
runs at sites that refuse foreign code, and the code measurement that a site attests to covers everything that
will run.

Rules:
- equal jobs compile to equal bytes: no clock, no path, no random id;
- the canonical job travels along (`app/config/cloister_job.json`), and each site's executor is configured
  with its SHA-256, so that a mix-up of jobs is noticed. It proves nothing, as it is part of the folder: a
  site compiles its job by itself and compares the whole folder (`SiteNode.accept_folder`).

Format: NVFlare 2.9 job folder, `meta.json` and `app/config/config_fed_{server,client}.json`, format_version
2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.core.canonical import JSON, canonicalize
from cloister.core.files import read_bounded, resolve_inside, write_atomic
from cloister.core.hashes import sha256_hex
from cloister.federation.errors import JobError
from cloister.federation.job import AggregationStrategy, FederationJob

APP = "app"
TRAIN_TASK = "train"
JOB_FILE = f"{APP}/config/cloister_job.json"
SERVER_FILE = f"{APP}/config/config_fed_server.json"
CLIENT_FILE = f"{APP}/config/config_fed_client.json"
META_FILE = "meta.json"
MAX_FILE_BYTES = 16 * 1024 * 1024

_FLARE = "cloister.federation.flare"
_CONTROLLERS: Mapping[AggregationStrategy, str] = {
    AggregationStrategy.FED_AVG: f"{_FLARE}.controllers.QuorumFedAvg",
}


@dataclass(frozen=True)
class JobFolder:
    """An NVFlare job folder in memory: relative POSIX path to content."""

    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """SHA-256 over the canonical JSON of {path: SHA-256 of the content}."""
        listing: dict[str, JSON] = {path: str(sha256_hex(data)) for path, data in self.files.items()}
        return str(sha256_hex(canonicalize(listing)))

    @classmethod
    def read(cls, directory: Path) -> JobFolder:
        """The job folder that lies in `directory`: its meta file and everything below its app.

        Raises:
            InputError: a file is missing, too large, a link or no plain file.
        """
        found = (path for path in (directory / APP).rglob("*") if path.is_symlink() or not path.is_dir())
        below = sorted(path.relative_to(directory).as_posix() for path in found)
        return cls(
            {
                relative: read_bounded(resolve_inside(directory, relative), MAX_FILE_BYTES)
                for relative in (META_FILE, *below)
            }
        )

    def write(self, directory: Path) -> Path:
        """Writes the files under `directory` (made if absent).

        Returns:
            The directory.

        Raises:
            StorageError: no space, no permission.
        """
        for relative, data in sorted(self.files.items()):
            target = directory / relative
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(target, data)
        return directory


def compile_job(job: FederationJob) -> JobFolder:
    """The folder with which any NVFlare 2.9 back end runs this job.

    Raises:
        JobError: `federation.strategy_unavailable` when no controller exists for the job's strategy.
    """
    controller = _CONTROLLERS.get(job.strategy)
    if controller is None:
        known = ", ".join(sorted(_CONTROLLERS))
        raise JobError(
            "federation.strategy_unavailable",
            f"the strategy {job.strategy.value} cannot run yet",
            f"choose one of: {known}",
        )
    documents: dict[str, dict[str, JSON]] = {
        META_FILE: _meta(job),
        SERVER_FILE: _server(job, controller),
        CLIENT_FILE: _client(job),
    }
    files = {path: canonicalize(document) for path, document in documents.items()}
    files[JOB_FILE] = job.canonical()
    return JobFolder(files)


def _meta(job: FederationJob) -> dict[str, JSON]:
    return {
        "name": f"cloister-{job.job_id}",
        "min_clients": job.min_clients,
        "resource_spec": {},
        "deploy_map": {APP: ["server", *job.clients]},
    }


def _server(job: FederationJob, controller: str) -> dict[str, JSON]:
    return {
        "format_version": 2,
        "server": {"heart_beat_timeout": 600, "task_request_interval": 0.05},
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [{"id": "gate", "path": f"{_FLARE}.gate.AttestationGate", "args": {}}],
        "workflows": [
            {
                "id": job.strategy.value.lower(),
                "path": controller,
                "args": {
                    "sites": list(job.clients),
                    "num_rounds": job.rounds,
                    "min_sites": job.min_clients,
                    "round_timeout": job.round_timeout_seconds,
                },
            }
        ],
    }


def _client(job: FederationJob) -> dict[str, JSON]:
    return {
        "format_version": 2,
        "executors": [
            {
                "tasks": [TRAIN_TASK],
                "executor": {"path": f"{_FLARE}.executor.SiteExecutor", "args": {"job_sha256": job.sha256}},
            }
        ],
        "task_data_filters": [],
        "task_result_filters": [
            {"tasks": [TRAIN_TASK], "filters": [{"path": f"{_FLARE}.filter.AirlockFilter", "args": {}}]}
        ],
        "components": [],
    }
