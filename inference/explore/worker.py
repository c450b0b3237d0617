"""A process that answers slow questions, one at a time, while this one stays free."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator
from copy import deepcopy
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Thread
from typing import Any
from weakref import WeakSet

import torch

from inference.explore.questions import Answer, Question, answer
from pyro_rnp import RNP

WORKERS = 4
"""Processes of all visitors that live at once."""
IDLE = 300.0
"""Seconds after which a process that nobody asks ends."""


class Worker:
    """Answers one visitor's slow questions in a process of its own.

    A newer question ends the older one. Nothing waits: `poll` takes what has arrived. `close`, the
    end of this process, or `IDLE` seconds without a question end the other one. At most `WORKERS`
    live at once; a further one takes the place of the one that has been idle for longest.

    Args:
        rnp: the model, as it is at the first question.
    """

    def __init__(self, rnp: RNP) -> None:
        self.rnp = rnp
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._outbox: SimpleQueue[Any] = SimpleQueue()
        self._sender: Thread | None = None
        self._ready = False
        self._number = 0
        self._waiting: Question | None = None
        self.busy = False
        """Whether the newest question still has answers to come."""
        self._ended = False
        self._asked = 0.0
        _workers.add(self)

    def start(self) -> None:
        """Start the process, so that it is there when the first question is asked.

        Raises:
            ValueError: if this system cannot hand a pipe to another process, as Windows, the
                worker was closed for good, or too many others answer questions.
        """
        if self._ended:
            raise ValueError("The page that asks is closed.")
        if self._lives():
            return
        self.close()
        self._make_room()
        self._pipe, there = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        with there, tempfile.TemporaryFile() as model:
            model.write(_stored(self.rnp))
            model.seek(0)
            fds = there.fileno(), model.fileno()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"from inference.explore.worker import serve; serve{(*fds, IDLE)}",
                ],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is for this process
                env={**os.environ, "PYTHONPATH": paths},
            )
        self._outbox = SimpleQueue()
        self._sender = Thread(target=_carry, args=(self._pipe, self._outbox), daemon=True)
        self._sender.start()

    @property
    def ready(self) -> bool:
        """Whether its process listens, so that an answer needs no start."""
        return self._ready

    def _lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _make_room(self) -> None:
        """End the process of another worker if there are too many.

        Raises:
            ValueError: if all of them are at work.
        """
        living = [worker for worker in list(_workers) if worker._lives()]
        if len(living) < WORKERS:
            return
        idle = [worker for worker in living if not worker.busy]
        if not idle:
            raise ValueError(f"{len(living)} other questions are at work; ask again later.")
        min(idle, key=lambda worker: worker._asked).close()

    def ask(self, question: Question) -> None:
        """Ask a question, which ends the one before.

        Args:
            question: the question, as `Session.question` gives it.

        Raises:
            ValueError: as `start`.
        """
        self.start()
        self._number += 1
        self._waiting, self.busy, self._asked = question, True, time.monotonic()
        self._hand_over()

    def cancel(self) -> None:
        """End the question, if there is one."""
        if self.busy:
            self._number += 1
            self._waiting, self.busy = None, False
            self._hand_over()

    def _hand_over(self) -> None:
        """Send the newest question, or None, once the process listens.

        A thread waits in our place: a process that is itself sending does not read.
        """
        if self._ready:
            self._outbox.put((self._number, self._waiting))

    def poll(self) -> list[Answer]:
        """Take the answers to the newest question that have arrived since, without waiting.

        Raises:
            ValueError: in one sentence, if the question has no answer.
        """
        found: list[Answer] = []
        try:
            while self._pipe is not None and self._pipe.poll():
                number, said = pickle.loads(self._pipe.recv_bytes())
                if number == 0:
                    self._ready = True
                    self._hand_over()
                elif number != self._number:
                    continue
                elif isinstance(said, Answer):
                    found.append(said)
                else:
                    self.busy = False
                    if said is not None:
                        raise ValueError(said)
        except (EOFError, OSError) as error:
            asked = self.busy
            self.close()
            if asked:
                raise ValueError("The process that answers has ended; ask again.") from error
        return found

    async def answers(self, question: Question, every: float = 0.05) -> AsyncIterator[Answer]:
        """Ask a question and yield its answers as they arrive, the fast engine's first.

        It ends early where a newer question is asked meanwhile.

        Args:
            question: as for `ask`.
            every: seconds between two looks.

        Raises:
            ValueError: as `poll`.
        """
        self.ask(question)
        number = self._number
        while number == self._number:
            for found in self.poll():
                yield found
            if not self.busy:
                return
            await asyncio.sleep(every)

    def close(self, final: bool = False) -> None:
        """End the process, at once.

        Args:
            final: whether no question may start another one.
        """
        self._ended = self._ended or final
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._sender is not None:  # which sends to nobody now, and so does not wait
            self._outbox.put(None)
            self._sender.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process, self._sender, self._pipe, self._waiting = None, None, None, None
        self._ready = self.busy = False


_workers: WeakSet[Worker] = WeakSet()


def _stored(rnp: RNP) -> bytes:
    """A model as bytes: itself, or where pieces that it names cannot be pickled, its state."""
    rnp = deepcopy(rnp)  # which is not compiled
    try:
        return pickle.dumps(rnp)
    except Exception:  # pieces of PYRO_RNP_PIECES, of which only that file knows
        return pickle.dumps((rnp.config, rnp.state_dict()))


def _loaded(stored: bytes) -> RNP:
    """The inverse of `_stored`."""
    if own := os.environ.get("PYRO_RNP_PIECES"):
        runpy.run_path(own)
    found = pickle.loads(stored)
    if isinstance(found, RNP):
        return found
    config, state = found
    rnp = RNP(config).to(next(t.dtype for t in state.values() if t.is_floating_point()))
    rnp.load_state_dict(state)
    return rnp.eval()


def _send(pipe: Connection, message: Any) -> None:
    """Send a message by value; torch's own way shares tensors between processes of one family."""
    pipe.send_bytes(pickle.dumps(message))


def _carry(pipe: Connection, outbox: SimpleQueue[Any]) -> None:
    """Send what is put into a queue, until that is None or nobody listens."""
    with contextlib.suppress(OSError):  # the process has ended, which `poll` tells
        while (message := outbox.get()) is not None:
            _send(pipe, message)


class _Newer(Exception):
    """Raised within a query when something else is asked."""


def serve(pipe: int, model: int, idle: float = IDLE) -> None:
    """Answer questions until the other end of the pipe is closed; this is the worker's process.

    Args:
        pipe: file descriptor of a connection.
        model: file descriptor of the model's file.
        idle: seconds without a question after which it ends.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one is for parses meanwhile
    os.nice(5)
    connection, rnp = Connection(pipe), None
    try:
        with open(model, "rb") as file:
            rnp = _loaded(file.read())
    except Exception as error:
        refused = f"The process that answers cannot load the model: {str(error).rstrip('.')}."
    with contextlib.suppress(EOFError, ConnectionError):  # nobody listens any more
        _send(connection, (0, None))
        while connection.poll(idle):
            number, question = pickle.loads(connection.recv_bytes())
            if rnp is None:
                _send(connection, (number, refused))
            elif question is not None:
                with contextlib.suppress(_Newer):
                    _answer(connection, rnp, number, question)


def _answer(connection: Connection, rnp: RNP, number: int, question: Question) -> None:
    def tick() -> None:
        if connection.poll():
            raise _Newer

    refused: str | None = None
    for method in question.methods:
        try:
            _send(connection, (number, answer(rnp, question, method, tick)))
            refused = None
        except ValueError as error:  # an engine that is not valid here; the next one may be
            refused = str(error)
        except (_Newer, ConnectionError):
            raise
        except Exception as error:
            traceback.print_exc()
            refused = f"The question has no answer: {type(error).__name__}: {error}"
        tick()
    _send(connection, (number, refused))
