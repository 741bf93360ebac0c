"""Signals that end a run, held back while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C comes last: what else ends a process by default must not find its handler gone when Ctrl-C raises.
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def end_like_interrupts() -> None:
    """Let being terminated, or losing the terminal, clean up as Ctrl-C does."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Signals that would end the run wait until the block is done. Only the main thread receives them at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in ENDING}
    own = {number: handler for number, handler in before.items() if handler is not None}  # None: not set by Python
    try:
        for number in own:
            signal.signal(number, hold)
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
