"""Memory that this process owns to the byte: locked where the kernel allows it, left out of cores, wiped.

What can be wiped is what was never copied elsewhere: a key or a table is read from the pipe straight into
such a buffer and decrypted inside another. What libraries copy for themselves while they work (batches, a
cipher's context) is not ours to wipe; the end of the process and the kernel take care of that.
"""

from __future__ import annotations

import ctypes
import mmap

from cloister.enclave.sealed.kernel import lock_memory


class LockedBuffer:
    """Anonymous pages of one size, zero at first.

    Args:
        size: in bytes, 0 or more.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pages = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = (ctypes.c_char * len(self._pages)).from_buffer(self._pages)
        try:
            lock_memory(ctypes.addressof(self._memory), len(self._pages))
            self.locked = True
        except OSError:
            self.locked = False

    @property
    def view(self) -> memoryview:
        """The bytes, to read and to write; shared, never a copy."""
        return memoryview(self._memory).cast("B")[: self.size]

    def wipe(self) -> int:
        """Overwrite all of it with zeros.

        Returns:
            How many bytes.
        """
        ctypes.memset(ctypes.addressof(self._memory), 0, len(self._pages))
        return self.size

    @property
    def is_zero(self) -> bool:
        """Whether nothing but zeros is in it."""
        return not any(
            self._pages[start : start + 65536].strip(b"\0") for start in range(0, self.size, 65536)
        )


def wipe_bytes(held: bytearray) -> int:
    """Overwrite a byte array in place.

    Returns:
        How many bytes.
    """
    if held:
        memory = (ctypes.c_char * len(held)).from_buffer(held)
        ctypes.memset(ctypes.addressof(memory), 0, len(held))
    return len(held)
