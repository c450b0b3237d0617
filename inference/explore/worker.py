"""A process that answers slow questions, one at a time, while this one stays free."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch

from inference.explore.questions import Answer, Question, answer
from pyro_rnp import RNP


class Worker:
    """Answers one visitor's slow questions in a process of its own.

    A newer question ends the older one. Nothing waits: `poll` takes what has arrived. `close`, or
    the end of this process, ends the other one.

    Args:
        rnp: the model, as it is at the first question.
    """

    def __init__(self, rnp: RNP) -> None:
        self.rnp = rnp
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._ready = False
        self._number = 0
        self._waiting: tuple[int, Question] | None = None
        self._arrived: deque[Answer | str] = deque()
        self.busy = False
        """Whether the newest question still has answers to come."""

    def start(self) -> None:
        """Start the process, so that it is there when the first question is asked."""
        if self._process is not None:
            return
        here, there = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        with there, tempfile.TemporaryFile() as model:
            pickle.dump(self.rnp, model)
            model.seek(0)
            fds = there.fileno(), model.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from inference.explore.worker import serve; serve{fds}"],
                pass_fds=fds,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
        self._pipe = here

    def ask(self, question: Question) -> None:
        """Ask a question, which ends the one before.

        Args:
            question: the question, as `Session.question` gives it.
        """
        self.start()
        self._number += 1
        self._waiting, self.busy = (self._number, question), True
        self._hand_over()

    def cancel(self) -> None:
        """End the question, if there is one."""
        self._number += 1
        self._waiting, self.busy = None, False
        if self._ready and self._pipe is not None:
            _send(self._pipe, None)

    def _hand_over(self) -> None:
        """Send the question once the process listens, so that sending never waits for it."""
        if self._ready and self._waiting is not None and self._pipe is not None:
            _send(self._pipe, self._waiting)
            self._waiting = None

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
                elif number == self._number:
                    if isinstance(said, str):
                        self.busy = False
                        raise ValueError(said)
                    if said is None:
                        self.busy = False
                    else:
                        found.append(said)
        except (EOFError, OSError) as error:
            self.close()
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

    def close(self) -> None:
        """End the process, at once."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process, self._pipe, self._ready, self.busy = None, None, False, False


def _send(pipe: Connection, message: Any) -> None:
    """Send a message by value; torch's own way shares tensors between processes of one family."""
    pipe.send_bytes(pickle.dumps(message))


class _Newer(Exception):
    """Raised within a query when something else is asked."""


def serve(pipe: int, model: int) -> None:
    """Answer questions until the other end of the pipe is closed; this is the worker's process.

    Args:
        pipe: file descriptor of a connection.
        model: file descriptor of the pickled model.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one is for parses meanwhile
    if hasattr(os, "nice"):
        os.nice(5)
    connection = Connection(pipe)
    with open(model, "rb") as file:
        rnp = pickle.load(file)

    def tick() -> None:
        if connection.poll():
            raise _Newer

    _send(connection, (0, None))
    while True:
        try:
            asked: Any = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        if asked is None:
            continue
        number, question = asked
        try:
            _answer(connection, rnp, number, question, tick)
        except _Newer:
            continue


def _answer(connection: Connection, rnp: RNP, number: int, question: Question, tick: Any) -> None:
    refused = ""
    for i, method in enumerate(question.methods):
        try:
            _send(connection, (number, answer(rnp, question, method, tick)))
        except _Newer:
            raise
        except ValueError as error:
            refused = str(error)
            if i + 1 == len(question.methods):
                _send(connection, (number, refused))
                return
        except Exception as error:
            traceback.print_exc()
            _send(connection, (number, f"The question has no answer: {error}"))
            return
    _send(connection, (number, None))
