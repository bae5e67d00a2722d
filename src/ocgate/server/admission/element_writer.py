"""Writes sessions' map elements to the kernel, many waiting changes in one transaction.

`held` is what the kernel has as far as we were told; it changes only after the kernel said yes.
Every change states whether a key shall be there, so that changes waiting together melt into one
diff; what an element holds is the mark of the exit that is in force when it is written. When the
kernel refuses (somebody changed our maps), the maps are read and brought to the wanted state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from ocgate.errors import OcgateError
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE
from ocgate.plan.exits import Marks
from ocgate.plan.nft import Elements, element_changes
from ocgate.sessions.elements import MAP4, MAP6, data

Key = tuple[str, str]
"""(map, key)."""


class ElementWriter:
    """The one writer of session elements. `lock` is held over every transaction on our tables:
    whoever replaces a table takes it too."""

    def __init__(self, nft: Nft, resync: Callable[[], Awaitable[None]]) -> None:
        self._nft = nft
        self._resync = resync
        self._held: dict[Key, str] = {}
        self._known = False  # a former control plane may have left any element
        self.settled: Callable[[], object] = lambda: None  # called when a whole table was taken
        self._wanted: dict[Key, bool] = {}
        self._marks = Marks()
        self._waiting: list[asyncio.Future[None]] = []
        self._worker: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()
        self.unsettled = False  # what the kernel holds is not what the session table says

    def now_holds(self, elements: Elements, marks: Marks) -> None:
        """Take note of what a replaced table holds, and of the marks that new elements get; call it
        under `lock`."""
        self._marks = marks
        self._held = {(name, key): data for name, m in elements.items() for key, data in m.items()}
        self._known, self.unsettled = True, False
        self.settled()

    def may_hold(self, key: Key) -> bool:
        """Whether this element may be in the kernel: what it refused to take out still is."""
        return not self._known or key in self._held

    def held(self) -> dict[str, dict[str, str]]:
        """What the kernel holds: map -> key -> data."""
        found: dict[str, dict[str, str]] = {MAP4: {}, MAP6: {}}
        for (name, key), mark in self._held.items():
            found[name][key] = mark
        return found

    async def change(self, *, put: Iterable[Key] = (), drop: Iterable[Key] = ()) -> None:
        """Returns when the kernel holds it; raises what the kernel said where it does not: then it
        holds neither this nor, once it takes changes again, anything else than the session table.
        """
        self._wanted |= dict.fromkeys(drop, False)
        self._wanted |= dict.fromkeys(put, True)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._commit_all())
        await done

    async def _commit_all(self) -> None:
        while self._waiting:
            async with self.lock:
                wanted, waiting = self._wanted, self._waiting
                self._wanted, self._waiting = {}, []
                error = await self._commit(wanted)
            if error is not None:
                error = await self._recover(error)
                self.unsettled = error is not None
            for done in waiting:
                if done.cancelled():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    async def _commit(self, wanted: dict[Key, bool]) -> Exception | None:
        if self.unsettled:  # a session that ended may still be there: first all is put right
            return OcgateError("the kernel has refused the last change")
        shall = {key: data(key[0], self._marks) if there else None for key, there in wanted.items()}
        changed = {key: mark for key, mark in shall.items() if self._held.get(key) != mark}
        text = element_changes(
            NFT_TABLE,
            remove=[key for key in changed if key in self._held],
            add=[(name, key, mark) for (name, key), mark in changed.items() if mark is not None],
        )
        if not text:
            return None
        try:
            # In the loop's thread: 0.1 ms for one element is less than a thread's hand-over, and
            # 10,000 at once are re-adoption, before anybody waits.
            self._nft.run(text)
        except (OcgateError, OSError, MemoryError) as refused:
            return refused
        for key, mark in changed.items():
            if mark is None:
                self._held.pop(key, None)
            else:
                self._held[key] = mark
        return None

    async def _recover(self, refused: Exception) -> Exception | None:
        """Somebody else touched our table: put all of it right, which includes these changes,
        because the session table already has them."""
        try:
            await self._resync()
        except OcgateError as error:
            return error
        except Exception:
            return refused
        return None
