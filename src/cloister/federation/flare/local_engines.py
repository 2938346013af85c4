"""NVFlare's server and client engines without a network: a message is a call.

NVFlare's runners, controllers, filters and events are the real ones (pinned to 2.9.0); these two classes
stand where its gRPC engines stand. A message keeps what it would keep on the wire: the sender's public
properties become the peer context, private ones stay behind.

Source: nvflare.private.fed.server.server_engine and nvflare.private.fed.client.client_run_manager (2.9.0).
"""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NoReturn

from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.server_engine_spec import ServerEngineSpec
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.utils.fl_context_utils import gen_new_peer_ctx
from nvflare.apis.workspace import Workspace
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.private.fed.client.client_engine_executor_spec import ClientEngineExecutorSpec, TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig
from nvflare.private.fed.server.server_runner import ServerRunner, ServerRunnerConfig

from cloister.federation.errors import FederationError
from cloister.federation.flare.messages import TASKS_POSTED

AuxHandler = Callable[..., Shareable]


class _Participant(ABC):
    """What server and client engines share: contexts, components, events and auxiliary messages."""

    def __init__(
        self,
        name: str,
        job_id: str,
        workspace: Workspace,
        config: ServerRunnerConfig | ClientRunnerConfig,
        properties: Mapping[str, object],
    ) -> None:
        self.name = name
        self._workspace = workspace
        self._components: dict[str, object] = config.components
        self.handlers: list[FLComponent] = config.handlers
        self._aux: dict[str, AuxHandler] = {}
        self._contexts = FLContextManager(
            engine=self,
            identity_name=name,
            job_id=job_id,
            private_stickers={
                FLContextKey.WORKSPACE_OBJECT: workspace,
                FLContextKey.WORKSPACE_ROOT: workspace.get_root_dir(),
                FLContextKey.APP_ROOT: workspace.get_root_dir(),
                FLContextKey.CURRENT_JOB_ID: job_id,
                FLContextKey.JOB_META: {},
                FLContextKey.SECURE_MODE: False,
                **properties,
            },
        )

    def new_context(self) -> FLContext:
        return self._contexts.new_context()

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        fire_event_to_components(event_type, self.handlers, fl_ctx)

    def add_component(self, component_id: str, component: object) -> None:
        self._components[component_id] = component

    def get_component(self, component_id: str) -> object:
        return self._components.get(component_id)

    def get_all_components(self) -> dict[str, object]:
        return self._components

    def get_workspace(self) -> Workspace:
        return self._workspace

    def get_widget(self, widget_id: str) -> None:
        return None

    def get_cell(self) -> None:
        return None

    def shutdown_streamer(self) -> None:  # noqa: B027 - complete as it is
        """Nothing streams in one process."""

    def register_aux_message_handler(self, topic: str, message_handle_func: AuxHandler) -> None:
        self._aux[topic] = message_handle_func

    def receive_aux(self, topic: str, request: Shareable, sender: FLContext) -> Shareable:
        """Handles an auxiliary message in this participant's own context."""
        handler = self._aux.get(topic)
        if handler is None:
            return make_reply(ReturnCode.TOPIC_UNKNOWN)
        with self.new_context() as fl_ctx:
            fl_ctx.set_peer_context(gen_new_peer_ctx(sender))
            return handler(topic=topic, request=request, fl_ctx=fl_ctx)

    def multicast_aux_requests(
        self,
        topic: str,
        target_requests: Mapping[str, Shareable],
        timeout: float,
        fl_ctx: FLContext,
        optional: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
        secure: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[str, Shareable]:
        replies: dict[str, Shareable] = {}
        for target, request in target_requests.items():
            replies.update(self.send_aux_request([target], topic, request, timeout, fl_ctx))
        return replies

    @abstractmethod
    def send_aux_request(
        self,
        targets: list[str] | None,
        topic: str,
        request: Shareable,
        timeout: float,
        fl_ctx: FLContext,
        optional: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
        secure: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[str, Shareable]:
        """Sends one message to some participants and collects their answers."""

    def _absent(self, *_: object, **__: object) -> NoReturn:
        raise FederationError(
            "federation.no_engine_part", "a job in one process has no scheduler, snapshots or child processes"
        )


class LocalServerEngine(_Participant, ServerEngineSpec):
    """The hub's engine. Sites connect to it with `connect`."""

    def __init__(
        self,
        job_id: str,
        workspace: Workspace,
        config: ServerRunnerConfig,
        properties: Mapping[str, object],
    ) -> None:
        super().__init__("server", job_id, workspace, config, properties)
        self._clients: dict[str, LocalClientEngine] = {}
        self._posting = threading.RLock()
        self._tasks_posted = threading.Condition(self._posting)
        self._postings = 0
        self.runner = ServerRunner(config, job_id, self)
        self.handlers.append(self.runner)

    def connect(self, client: LocalClientEngine) -> None:
        """Lets a site's engine take part."""
        self._clients[client.name] = client

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Fires an event; new tasks and the run's end wake the sites that wait."""
        super().fire_event(event_type, fl_ctx)
        if event_type in {TASKS_POSTED, EventType.END_RUN}:
            with self._posting:
                self._postings += 1
                self._tasks_posted.notify_all()

    @property
    def postings(self) -> int:
        """How often tasks were posted; read before asking for a task, to miss none while going to sleep."""
        return self._postings

    def wait_for_tasks(self, after: int, seconds: float) -> None:
        """Sleeps until tasks were posted more than `after` times, at most `seconds`."""
        with self._posting:
            self._tasks_posted.wait_for(lambda: self._postings > after, seconds)

    def get_clients(self) -> list[Client]:
        """NVFlare's records of the sites that are connected."""
        return [engine.client for engine in self._clients.values()]

    def get_participating_clients(self) -> dict[str, Client]:
        """The same, by token."""
        return {engine.client.token: engine.client for engine in self._clients.values()}

    def get_client_from_name(self, client_name: str) -> Client | None:
        """The record of one site."""
        engine = self._clients.get(client_name)
        return engine.client if engine else None

    def get_client_name_from_token(self, token: str) -> str:
        """The name of the site with this token, or an empty string."""
        return next((c.name for c in self.get_clients() if c.token == token), "")

    def validate_targets(self, target_names: list[str]) -> tuple[list[Client], list[str]]:
        """Splits names into those connected and those not."""
        known = [self._clients[name].client for name in target_names if name in self._clients]
        return known, [name for name in target_names if name not in self._clients]

    def send_aux_request(
        self,
        targets: list[str] | None,
        topic: str,
        request: Shareable,
        timeout: float,
        fl_ctx: FLContext,
        optional: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
        secure: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[str, Shareable]:
        """Hands a message to sites. With a timeout each answers on a thread of its own; a late answer is
        lost."""
        replies: dict[str, Shareable] = {}
        for name in targets or list(self._clients):
            engine = self._clients.get(name)
            if engine is None:
                continue
            if timeout <= 0:
                replies[name] = engine.receive_aux(topic, request, fl_ctx)
                continue
            answer: list[Shareable] = []
            thread = threading.Thread(
                target=_answer, args=(engine, topic, request, fl_ctx, answer), name=f"aux-{name}", daemon=True
            )
            thread.start()
            thread.join(timeout)
            replies[name] = answer[0] if answer else make_reply(ReturnCode.TIMEOUT)
        return replies

    def persist_components(self, fl_ctx: FLContext, completed: bool) -> None:  # noqa: FBT001
        """Nothing to persist: the hub's node keeps each round."""

    def sync_clients_from_main_process(self) -> None:
        """There is no other process."""

    def update_job_run_status(self) -> None:
        """There is no other process."""

    restore_components = _Participant._absent
    start_client_job = _Participant._absent
    check_client_resources = _Participant._absent
    cancel_client_resources = _Participant._absent


class LocalClientEngine(_Participant, ClientEngineExecutorSpec):
    """A site's engine, wired to the hub's."""

    def __init__(
        self,
        name: str,
        job_id: str,
        workspace: Workspace,
        config: ClientRunnerConfig,
        properties: Mapping[str, object],
        server: LocalServerEngine,
    ) -> None:
        super().__init__(name, job_id, workspace, config, properties)
        self._server = server
        self.client = Client(name, str(uuid.uuid4()))
        self.runner = ClientRunner({}, config, job_id, self)
        self.handlers.append(self.runner)
        server.connect(self)

    def get_task_assignment(self, fl_ctx: FLContext, timeout: float | None = None) -> TaskAssignment:
        """Asks the hub for a task."""
        with self._server.new_context() as server_ctx:
            server_ctx.set_peer_context(gen_new_peer_ctx(fl_ctx))
            name, task_id, data = self._server.runner.process_task_request(self.client, server_ctx)
            fl_ctx.set_peer_context(gen_new_peer_ctx(server_ctx))
        return TaskAssignment(name, task_id, data)

    def send_task_result(self, result: Shareable, fl_ctx: FLContext, timeout: float | None = None) -> bool:
        """Hands a result to the hub."""
        with self._server.new_context() as server_ctx:
            peer = gen_new_peer_ctx(fl_ctx)
            peer.set_prop(FLContextKey.SHAREABLE, result, private=False, sticky=False)
            server_ctx.set_peer_context(peer)
            self._server.runner.process_submission(
                self.client,
                result.get_header(ReservedHeaderKey.TASK_NAME),
                result.get_header(ReservedHeaderKey.TASK_ID),
                result,
                server_ctx,
            )
        return True

    def send_aux_request(
        self,
        targets: list[str] | str | None,
        topic: str,
        request: Shareable,
        timeout: float,
        fl_ctx: FLContext,
        optional: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
        secure: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[str, Shareable]:
        """Hands a message to the hub; sites cannot address each other."""
        return {FQCN.ROOT_SERVER: self._server.receive_aux(topic, request, fl_ctx)}

    def fire_and_forget_aux_request(
        self,
        topic: str,
        request: Shareable,
        fl_ctx: FLContext,
        optional: bool = False,  # noqa: FBT001, FBT002 - NVFlare's signature
        secure: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[str, Shareable]:
        """Hands a message to the hub and drops the answer."""
        return self.send_aux_request(None, topic, request, 0.0, fl_ctx)

    def validate_targets(self, target_names: list[str]) -> tuple[list[str], list[str]]:
        """Splits names into the hub's and others."""
        known = [name for name in target_names if name == FQCN.ROOT_SERVER]
        return known, [name for name in target_names if name != FQCN.ROOT_SERVER]

    build_component = _Participant._absent
    abort_app = _Participant._absent


def _answer(
    engine: LocalClientEngine, topic: str, request: Shareable, fl_ctx: FLContext, answer: list[Shareable]
) -> None:
    try:
        answer.append(engine.receive_aux(topic, request, fl_ctx))
    except Exception:
        answer.append(make_reply(ReturnCode.HANDLER_EXCEPTION))
