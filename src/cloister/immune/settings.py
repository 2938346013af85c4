"""The settings of the immune system, from the command line, the environment, a YAML file and defaults.

Found first, taken first: command line, ``PIC_*`` of the environment (``PIC_CELLAGENT__SAMPLING_RATE``), the
file, the default. A key that isn't known is refused. `get` reads one by its dotted name.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

_PRINTED: Final = r"^[^\x00-\x1f\x7f]*$"
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PRINTED)]
_TagValue = Annotated[str, StringConstraints(max_length=128, pattern=_PRINTED)]


FunctionPattern = Annotated[str, Field(pattern=r"^(\*|[^:\s]+:[^:\s]+)$", max_length=600)]
"""A function as ``module:qualname``; ``*`` stands for anything in a name, or for all functions."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CellAgentSettings(_Part):
    """How calls are observed.

    Attributes:
        watch: functions to watch beside the decorated ones, ``module:glob``.
        enabled: whether anything is observed; off, a wrapped function costs a pass-through.
        sampling: ``budgeted`` observes as many calls as the overhead budget pays for, all of a slow function;
            ``fixed`` observes one in 1/sampling_rate; ``every-call`` observes all.
        sampling_rate: share of calls that ``fixed`` observes; until ``budgeted`` has learned a function it
            observes a third of its calls, or this share where it is more.
        overhead_budget: share of processor time that observing may cost under ``budgeted``.
        cpu_threshold: share of one processor above which the whole process observes less.
        buffer_size: events that the ring buffer holds.
        batch_size: events of a batch to the brain service.
        batch_interval_sec: seconds after which a smaller batch goes.
        resource_tags: labels that every event carries, ``{service: shop, host: web-1}``; 32 at most.
    """

    watch: tuple[str, ...] = ()
    enabled: bool = True
    sampling: Literal["budgeted", "fixed", "every-call"] = "budgeted"
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    overhead_budget: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    cpu_threshold: Annotated[float, Field(gt=0, le=1)] = 0.02
    buffer_size: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    batch_size: Annotated[int, Field(ge=1, le=1_000)] = 100
    batch_interval_sec: Annotated[float, Field(gt=0, le=3600)] = 5.0
    resource_tags: Annotated[dict[_Tag, _TagValue], Field(max_length=32)] = {}


class BaselineSettings(_Part):
    """What is learned before anything is judged.

    Attributes:
        min_samples: observed calls after which there is a baseline.
        min_hours: or hours since the first one.
        window_hours: how far back a baseline's statistics look.
        retrain_every: observed calls between two looks at baseline and detectors' ends.
        half_life: observed calls after which what was learned weighs half.
        block_after: learned calls without which nothing is ever blocked.
        drift_ratio: how far the present level may be from the approved one before the drift alarm.
    """

    min_samples: Annotated[int, Field(ge=2)] = 20
    min_hours: Annotated[float, Field(gt=0)] = 2.0
    window_hours: Annotated[float, Field(gt=0)] = 72.0
    retrain_every: Annotated[int, Field(ge=1)] = 100
    half_life: Annotated[int, Field(ge=100)] = 4000
    block_after: Annotated[int, Field(ge=200)] = 200
    drift_ratio: Annotated[float, Field(gt=1)] = 1.5


class AnomalySettings(_Part):
    """How a call is judged.

    Attributes:
        detector: ``tail`` is the tail table. For comparison: ``l2-percentile``, the seed's, and ``fusion``,
            an average of the tail table's score with what a call opens, connects to, starts and loads.
        alpha: expected share of ordinary calls with a score above the threshold of 80.
        candidate_score_threshold: above it a call makes a candidate.
        threshold_percentile: of ``l2-percentile``: the rank above which a distance is unusual.
    """

    detector: Literal["tail", "l2-percentile", "fusion"] = "tail"
    alpha: Annotated[float, Field(gt=0, le=0.05)] = 0.001
    candidate_score_threshold: Annotated[float, Field(ge=0, le=100)] = 80.0
    threshold_percentile: Annotated[float, Field(ge=50, lt=100)] = 95.0


_ONLY_ALLOW: Final = {
    "default_action": "it is always allow: a call that no promoted detector recognised runs, and"
    " effector.enforcing names the functions for which more may be done",
    "fail_safe_mode": "it is always allow: a fault of the immune system never costs the application a call;"
    " it is counted, and pic status shows it",
}


class EffectorSettings(_Part):
    """What is done about unusual calls.

    Attributes:
        enforcing: functions, ``module:qualname``, whose calls may be blocked; all others are observed.
        promotion: who promotes a detector that passed: an operator, or this policy by itself.
        detector_days: days after which a detector ends.
        contain_seconds: how long a contained function stays so before a probe.
        probe_one_in: of a contained function's calls, one in so many runs as a probe afterwards.
        quarantine_above: score above which a call of a watched function is audited in full.
        kill_signal: a signal that throws the kill switch of the one process that it is sent to, until that
            process ends; the immune system is then to be switched on in the main thread. Without it, no
            signal is handled.
        default_action: what happens to a call that no promoted detector recognised. There is one value: what
            is merely unknown always runs, and ``enforcing`` says where more may be done.
        fail_safe_mode: what happens where the effector itself fails. There is one value: a fault of the
            immune system never costs the application a call; it is counted as ``effector_failures``.
    """

    enforcing: tuple[FunctionPattern, ...] = ()
    promotion: Literal["operator", "policy"] = "operator"
    detector_days: Annotated[float, Field(gt=0)] = 90.0
    contain_seconds: Annotated[float, Field(gt=0)] = 60.0
    probe_one_in: Annotated[int, Field(ge=1)] = 20
    quarantine_above: Annotated[float, Field(ge=0, le=100)] = 95.0
    kill_signal: Literal["SIGUSR1", "SIGUSR2"] | None = None
    default_action: Literal["allow"] = "allow"
    fail_safe_mode: Literal["allow"] = "allow"

    @field_validator("default_action", "fail_safe_mode", mode="before")
    @classmethod
    def _only_allow(cls, value: object, info: ValidationInfo) -> object:
        if value != "allow":
            raise ValueError(_ONLY_ALLOW[str(info.field_name)])
        return value


class EgressSettings(_Part):
    """The guard of what a watched function reaches for.

    Attributes:
        enabled: whether the audit hook is installed.
        learn_calls: observed calls of a function after which what it reached for is known.
    """

    enabled: bool = True
    learn_calls: Annotated[int, Field(ge=1)] = 200


class StorageSettings(_Part):
    """Where things are kept.

    Attributes:
        directory: folder of state database and audit segments; none keeps the state in memory and audits
            nothing. It is the immune system's alone: an enforcing function that changes anything in it is
            refused, and every watched one is told of.
        checkpoint_directory: a second folder that holds the audit's checkpoints, on another disk or of
            another machine: without one, who owns ``directory`` can cut away the audit's newest entries
            unseen, and the verdict of ``pic logs export`` says that nothing outside vouched.
        encrypted: whether the audit is encrypted at rest.
        trace_buffer_size: newest events kept per function.
        metadata_days: days after which old baselines and ended detectors are removed.
        trace_days: days after which kept events are removed.
        audit_days: days after which the audit of processes that have ended is removed; the removal is an
            entry of the audit.
    """

    directory: str | None = None
    checkpoint_directory: str | None = None
    encrypted: bool = False
    trace_buffer_size: Annotated[int, Field(ge=100, le=100_000)] = 1000
    metadata_days: Annotated[float, Field(gt=0)] = 90.0
    trace_days: Annotated[float, Field(gt=0)] = 30.0
    audit_days: Annotated[float, Field(ge=1)] = 365.0


class ApiSettings(_Part):
    """The brain service.

    Attributes:
        url: of a brain service to send to, or of a collector; none sends nothing. This process judges either
            way.
        protocol: what is spoken to ``url``: ``json`` to a brain service; ``otlp`` to an OpenTelemetry
            collector, which gets each decision as a log record and the durations of calls as a histogram
            (OTLP over HTTP, extra ``otlp``).
        service_name: what the collector calls this service; without it ``OTEL_SERVICE_NAME`` says.
        host: address that the service listens at.
        port: and port.
        token_file: file, readable by its owner only, with the secret that telemetry is signed with.
        certificate_file: certificate that the service or the sender shows, with its chain; PEM. With it go
            the two below, and only TLS 1.3 with certificates on both sides is spoken.
        key_file: its private key, readable by its owner only; PEM.
        authority_file: certificates of the authorities that the other side's has to come from; PEM.
        rate_per_second: events per second that are taken over time.
        burst: events that are taken at once.
        function_rate: events per second of one function.
        max_batch: events of one batch.
        max_body_bytes: bytes of one batch.
        metrics_enabled: whether ``/metrics`` answers.
    """

    url: str | None = None
    protocol: Literal["json", "otlp"] = "json"
    service_name: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8443
    token_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    authority_file: str | None = None
    rate_per_second: Annotated[float, Field(gt=0)] = 500.0
    burst: Annotated[int, Field(ge=1)] = 2000
    function_rate: Annotated[float, Field(gt=0)] = 1000.0
    max_batch: Annotated[int, Field(ge=1)] = 1000
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    metrics_enabled: bool = True


class ImmuneSettings(_Part):
    """Everything that a person may set."""

    cellagent: CellAgentSettings = CellAgentSettings()
    baseline: BaselineSettings = BaselineSettings()
    anomaly: AnomalySettings = AnomalySettings()
    effector: EffectorSettings = EffectorSettings()
    egress: EgressSettings = EgressSettings()
    storage: StorageSettings = StorageSettings()
    api: ApiSettings = ApiSettings()
