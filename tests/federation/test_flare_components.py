"""Our NVFlare classes one by one: how requests, refusals and results look as NVFlare messages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_constant import AppConstants

from cloister.core.errors import CloisterError
from cloister.enclave.tensors import tensors_sha256
from cloister.federation import FederationError
from cloister.federation.flare.aggregator import SiteOrderedAggregator
from cloister.federation.flare.controllers import QuorumFedAvg
from cloister.federation.flare.executor import SiteExecutor
from cloister.federation.flare.filter import AirlockFilter
from cloister.federation.flare.messages import (
    ERROR_CODE,
    HUB_LOG,
    NONCE,
    RAW_RESULT,
    SCALARS,
    SITE_LOG,
    SITE_NODE,
    UPDATE_SHA256,
    error_code,
)
from cloister.federation.node import Abort, RoundTask
from cloister.immune.errors import CallBlocked
from cloister.privacy.errors import BudgetExceeded
from tests.federation.nodes import ArithmeticHub, ArithmeticSite, a_job

JOB = a_job()


class NoEngine:
    def get_component(self, name: str) -> None:
        return None


def context(site: ArithmeticSite | None) -> FLContext:
    manager = FLContextManager(
        engine=NoEngine(), identity_name="south", job_id=JOB.job_id, private_stickers={SITE_NODE: site}
    )
    return manager.new_context()


def a_task(**changes: object) -> Shareable:
    meta = {HUB_LOG: changes.get("hub_log", f"the hub's log in round {changes.get('round', 0)}".encode())}
    task = DXO(DataKind.WEIGHTS, data=dict(ArithmeticHub(JOB).weights), meta=meta).to_shareable()
    task.set_header(AppConstants.CURRENT_ROUND, changes.get("round", 0))
    task.set_header(AppConstants.NUM_ROUNDS, 10)
    return task


def execute(site: ArithmeticSite, task: Shareable, name: str = "train") -> Shareable:
    return SiteExecutor(JOB.sha256).execute(name, task, context(site), Signal())


def leave(site: ArithmeticSite, result: Shareable) -> Shareable:
    return AirlockFilter().process(result, context(site))


def test_an_unknown_task_is_answered_as_unknown() -> None:
    site = ArithmeticSite(JOB, "south")
    assert execute(site, a_task(), "evaluate").get_return_code() == ReturnCode.TASK_UNKNOWN
    assert site.rounds == []


@pytest.mark.parametrize(
    "task",
    [
        Shareable(),
        DXO(DataKind.METRICS, data={"loss": 1.0}).to_shareable(),
        DXO(DataKind.WEIGHTS, data={"w": "text"}).to_shareable(),
        a_task(round=-1),
        a_task(round=10),
        a_task(round="0"),
        a_task(hub_log=None),
        a_task(hub_log="text"),
    ],
)
def test_a_task_of_a_wrong_form_is_bad_task_data(task: Shareable) -> None:
    site = ArithmeticSite(JOB, "south")
    assert execute(site, task).get_return_code() == ReturnCode.BAD_TASK_DATA
    assert site.rounds == []


def test_a_task_of_another_job_is_bad_task_data() -> None:
    site = ArithmeticSite(a_job(seed=9), "south")
    assert execute(site, a_task()).get_return_code() == ReturnCode.BAD_TASK_DATA


def test_a_refusal_of_the_site_travels_as_its_code_alone() -> None:
    def refuse(task: RoundTask, abort: Abort) -> None:
        raise BudgetExceeded("ledger.budget_exceeded", "4.9 of 5.0 is spent", details=["patient Smith"])

    reply = leave(south := ArithmeticSite(JOB, "south", before_round=refuse), execute(south, a_task()))
    assert reply.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert error_code(reply) == "ledger.budget_exceeded"
    assert "4.9" not in repr(reply)
    assert "Smith" not in repr(reply)


def test_a_site_works_on_copies_of_the_weights() -> None:
    def spoil(task: RoundTask, abort: Abort) -> None:
        for value in task.weights.values():
            value[...] = 99

    task = a_task()
    execute(ArithmeticSite(JOB, "south", before_round=spoil), task)
    assert all((value == 0).all() for value in from_shareable(task).data.values())


def test_a_site_without_a_node_says_so() -> None:
    with pytest.raises(FederationError) as missing:
        SiteExecutor(JOB.sha256).execute("train", a_task(), context(None), Signal())
    assert missing.value.code == "federation.no_node"


def test_only_what_the_node_released_leaves() -> None:
    site = ArithmeticSite(JOB, "south")
    result = execute(site, a_task())
    result["rows"] = [[1.0, 2.0]]
    result.set_header("note", "patient Smith")
    message = leave(site, result)
    assert set(message) == {"__headers__", "DXO", "kind", "data", "meta"} or "Smith" not in repr(message)
    assert RAW_RESULT not in message
    assert "rows" not in message
    assert "Smith" not in repr(message)
    update = from_shareable(message)
    assert update.data_kind == DataKind.WEIGHTS
    assert set(update.data) == {"layer.weight", "layer.bias"}
    assert update.get_meta_prop(UPDATE_SHA256) == tensors_sha256(update.data)
    assert update.get_meta_prop(SITE_LOG) == b"the log of south"


def test_what_a_later_filter_adds_is_dropped_again() -> None:
    site = ArithmeticSite(JOB, "south")
    shared = context(site)
    released: list[int] = []
    release = site.release

    def count(round_number: int, update: Mapping[str, object]) -> object:
        released.append(round_number)
        return release(round_number, update)

    site.release = count  # type: ignore[assignment, method-assign]
    message = AirlockFilter().process(execute(site, a_task()), shared)
    message["rows"] = [[1.0]]
    from_shareable(message).data["layer.bias"] = np.full(2, 7.0, np.float32)
    again = AirlockFilter().process(message, shared)
    assert "rows" not in again
    assert (from_shareable(again).data["layer.bias"] == np.float32(0.1)).all()
    assert released == [0]


def test_a_failed_result_leaves_as_a_code_without_content() -> None:
    site = ArithmeticSite(JOB, "south")
    failure = make_reply(ReturnCode.EXECUTION_EXCEPTION, {"trace": "row 17", ERROR_CODE: "row 17: Smith"})
    failure["rows"] = [[1.0]]
    message = leave(site, failure)
    assert message.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert error_code(message) == "federation.site_failed"
    assert "17" not in repr(message)


@pytest.mark.parametrize(
    "code", [None, 7, "", "Smith", "a b.c", "x." + "y" * 100, "federation.site_failed\n"]
)
def test_a_code_that_is_none_of_ours_is_not_repeated(code: object) -> None:
    assert (
        error_code(make_reply(ReturnCode.EXECUTION_EXCEPTION, {ERROR_CODE: code})) == "federation.site_failed"
    )


def test_a_result_that_never_met_the_executor_does_not_leave() -> None:
    message = leave(ArithmeticSite(JOB, "south"), a_task())
    assert message.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert error_code(message) == "federation.update_refused"


def test_a_challenge_of_a_wrong_form_is_refused() -> None:
    site = ArithmeticSite(JOB, "south")
    reply = SiteExecutor(JOB.sha256)._quote("topic", Shareable({NONCE: "text"}), context(site))
    assert reply.get_return_code() == ReturnCode.BAD_REQUEST_DATA


def test_an_update_other_than_the_stated_one_is_not_averaged() -> None:
    weights = ArithmeticHub(JOB).weights
    aggregator = SiteOrderedAggregator()
    aggregator.start(weights, {"south": 1.0})
    meta = {"client_name": "south", UPDATE_SHA256: "0" * 64, SCALARS: {}}
    with pytest.raises(FederationError) as refusal:
        aggregator.accept_model(FLModel(params=dict(weights), meta=meta))
    assert refusal.value.code == "federation.bad_update"
    assert isinstance(refusal.value, CloisterError)


def test_a_result_that_comes_after_its_round_changes_nothing() -> None:
    controller = QuorumFedAvg(sites=["south", "west"], num_rounds=2, min_sites=1, round_timeout=1)
    late = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    assert controller._accept_train_result("south", late, context(None), is_unknown_task=True) is False
    assert controller.sample_clients() == ["south", "west"]


def test_what_a_sites_immune_system_stops_travels_as_its_code_alone() -> None:
    def blocked(task: RoundTask, abort: Abort) -> None:
        raise CallBlocked("cloister.federation.site:SiteRuntime.train_round", "size 9.1x median", "event-1")

    reply = leave(south := ArithmeticSite(JOB, "south", before_round=blocked), execute(south, a_task()))
    assert reply.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert error_code(reply) == "immune.call_blocked"
    assert "9.1" not in repr(reply)
