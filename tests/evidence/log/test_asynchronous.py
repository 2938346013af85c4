"""The log on an event loop: answered when durable, closed cleanly, and nobody's cancellation is another's."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cloister.core.keys import PublicKey, Signer
from cloister.evidence.errors import LogError
from cloister.evidence.log import AsyncEvidenceLog, EvidenceLog
from tests.evidence.log.places import JOB, ORIGIN, Place, item


class Gate:
    """A signer that counts, and that can be held up."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.signed = 0
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.broken = False

    @property
    def public_key(self) -> PublicKey:
        return self._signer.public_key

    def sign(self, message: bytes) -> bytes:
        self.signed += 1
        self.reached.set()
        assert self.open.wait(20)
        if self.broken:
            raise OSError("the key is gone")
        return self._signer.sign(message)


def test_many_tasks_share_few_commits_and_all_is_there(place: Place, signer: Signer) -> None:
    gate = Gate(signer)
    with EvidenceLog.create(place, origin=ORIGIN, signer=gate) as log:

        async def work(number: int, writer: AsyncEvidenceLog) -> None:
            for position in range(5):
                one = item(signer, position, stream=str(number))
                entry = await writer.append(one.envelope, stream=one.stream, position=position)
                assert log.entry(entry.index) == one.envelope

        async def main() -> None:
            async with AsyncEvidenceLog(log) as writer:
                await asyncio.gather(*(work(number, writer) for number in range(40)))

        asyncio.run(main())
        assert log.verify().size == 200
        assert gate.signed < 100


def test_one_refusal_is_its_own(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:

        async def main() -> list[object]:
            async with AsyncEvidenceLog(log) as writer:
                items = [item(signer, number) for number in (0, 1, 1, 2)]
                return await asyncio.gather(
                    *(writer.append(one.envelope, stream=JOB, position=one.position) for one in items),
                    writer.append_many([item(signer, 3), item(signer, 4)]),
                    writer.append_many([]),
                    return_exceptions=True,
                )

        ended = asyncio.run(main())
        assert [isinstance(one, LogError) for one in ended] == [False, False, True, False, False, False]
        assert log.verify().size == 5


def test_closing_waits_for_what_was_handed_in_and_refuses_what_comes_after(
    path: Place, signer: Signer
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:

        async def main() -> None:
            writer = AsyncEvidenceLog(log)
            tasks = [asyncio.ensure_future(writer.append_many([item(signer, n)])) for n in range(3)]
            await asyncio.sleep(0)
            await writer.aclose()
            assert all(task.done() for task in tasks)
            with pytest.raises(LogError) as caught:
                await writer.append_many([item(signer, 3)])
            assert caught.value.code == "evidence.log_closed"
            await writer.aclose()

        asyncio.run(main())
        assert log.verify().size == 3


def test_a_cancelled_task_takes_nobody_with_it(path: Place, signer: Signer) -> None:
    gate = Gate(signer)
    with EvidenceLog.create(path, origin=ORIGIN, signer=gate) as log:

        async def main() -> list[object]:
            async with AsyncEvidenceLog(log) as writer:
                gate.open.clear()
                gate.reached.clear()
                tasks = [asyncio.ensure_future(writer.append_many([item(signer, n)])) for n in range(2)]
                await asyncio.to_thread(gate.reached.wait, 20)
                tasks += [asyncio.ensure_future(writer.append_many([item(signer, n)])) for n in (2, 3)]
                await asyncio.sleep(0)
                tasks[0].cancel()
                tasks[2].cancel()
                gate.open.set()
                return await asyncio.gather(*tasks, return_exceptions=True)

        ended = asyncio.run(main())
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, False, True, False]
        logged = [one.position for one in log.entries()]
        assert logged == [0, 1, 3]
        log.verify()


def test_a_key_that_is_gone_reaches_every_task_and_logs_nothing(path: Place, signer: Signer) -> None:
    gate = Gate(signer)
    with EvidenceLog.create(path, origin=ORIGIN, signer=gate) as log:

        async def main() -> None:
            async with AsyncEvidenceLog(log) as writer:
                gate.broken = True
                ended = await asyncio.gather(
                    *(writer.append_many([item(signer, n)]) for n in range(3)), return_exceptions=True
                )
                assert [type(one) for one in ended] == [OSError] * 3
                gate.broken = False
                await writer.append_many([item(signer, 0)])

        asyncio.run(main())
        assert log.verify().size == 1
