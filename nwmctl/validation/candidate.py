"""The artifact under test as the checks see it: a function that either answers or has failed for good.

Whatever a session does (crash, hang, wrong names, wrong shapes, foreign exceptions) becomes ``CandidateFailedError``,
which only ever becomes a failed check. After the first failure of its process the candidate stays failed: the checks
that follow say why at once instead of waiting for the same timeout again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nwmctl.domain.figure import Obtained
from nwmctl.domain.model import ModelContract
from nwmctl.errors import CandidateFailedError, MissingError, NwmError, RemoteError
from nwmctl.toolchains.protocol import Session, Tensors
from nwmctl.validation.drives import OpenSession
from nwmctl.validation.inputs import take
from nwmctl.validation.recording import Recording
from nwmctl.validation.subject import Pace, Way


class Candidate:
    """One way of executing an artifact, opened at the first run and closed at the end of the ``with`` block."""

    def __init__(self, contract: ModelContract, way: Way) -> None:
        self.contract = contract
        self.way = way
        self._session: Session | None = None
        self._failure: CandidateFailedError | None = None
        self._known: dict[bytes, Tensors] = {}
        self._replayed: tuple[Recording, Tensors] | None = None
        self._alone = False

    @property
    def obtained(self) -> Obtained:
        """How figures from this candidate are obtained."""
        return self.way.obtained

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_quietly(self._session)
        self._session = None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """Outputs for any number of rows, shapes and dtypes as the contract says. Raises CandidateFailedError.

        MissingError passes through: a runtime that is not installed is no fault of the artifact. So does RemoteError:
        a bench that went away says nothing about what it executed.
        """
        rows = len(next(iter(inputs.values())))
        if self._alone and rows > 1:
            return self._one_by_one(inputs, rows)
        outputs = self._answer(inputs)
        if not isinstance(outputs, dict):
            raise _failed("its session returned no tensors", f"it returned a {type(outputs).__name__}")
        for spec in self.contract.outputs:
            values = outputs.get(spec.name)
            if not isinstance(values, np.ndarray):
                raise _failed(f"output '{spec.name}' is missing", f"it returned {sorted(map(str, outputs))}")
            expected = (rows, *spec.shape[1:])
            if values.shape != expected or values.dtype != np.dtype(spec.dtype):
                raise _failed(
                    f"output '{spec.name}' is {values.dtype}{list(values.shape)}",
                    f"the contract says {spec.dtype}{list(expected)}",
                )
        return outputs

    def run_rows(self, inputs: Mapping[str, NDArray[np.generic]], *, again: bool = False) -> Tensors:
        """The same, one row at a time, as a vehicle runs it. A quantised graph may answer otherwise in a batch.

        Inputs that were asked before are not asked again (emulation is slow), unless ``again`` demands it.
        """
        key = _key(inputs)
        if not again and key in self._known:
            return self._known[key]
        if self.way.pace is not Pace.BATCH:
            self._known[key] = self.run(inputs)
            return self._known[key]
        self._known[key] = self._one_by_one(inputs, len(next(iter(inputs.values()))))
        return self._known[key]

    def ask_alone(self) -> None:
        """From now on every row is asked alone: this artifact answers otherwise in a batch, and a vehicle has none."""
        self._alone = True
        self._replayed = None

    def _one_by_one(self, inputs: Mapping[str, NDArray[np.generic]], rows: int) -> Tensors:
        parts = [self.run(take(inputs, slice(row, row + 1))) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def replay(self, recording: Recording) -> Tensors:
        """Answers [T,S,...] along recorded drives, open loop. Raises CandidateFailedError.

        Each drive is asked in the order of time, so that an artifact that remembers what it was asked before shows it.
        Rows after the end of a drive are zero unless the way takes whole batches. Asked once, then remembered.
        """
        if self._replayed is not None and self._replayed[0] is recording:
            return self._replayed[1]
        if self.way.pace is Pace.BATCH:
            parts = [self.run(step) for step in recording.steps]
            answers = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        else:
            answers = self._drive_by_drive(recording)
        self._replayed = (recording, answers)
        return answers

    def _drive_by_drive(self, recording: Recording) -> Tensors:
        answers: Tensors = {name: np.zeros_like(values) for name, values in recording.answers.items()}
        for drive in range(recording.live.shape[1]):
            count = int(recording.live[:, drive].sum())
            steps = recording.steps[:count]
            said = self.run({name: np.stack([step[name][drive] for step in steps]) for name in steps[0]})
            for name, values in answers.items():
                values[:count, drive] = said[name]
        return answers

    def _answer(self, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
        if self._failure is not None:
            raise self._failure
        try:
            if self._session is None:
                self._session = self.way.open()
            return self._session.run(inputs)
        except (MissingError, RemoteError):
            close_quietly(self._session)
            self._session = None
            raise
        except NwmError as problem:
            self._failure = _failed(problem.what, problem.why)
        except Exception as problem:  # a session that breaks its protocol is the candidate's fault, not the run's
            self._failure = _failed(f"it raised {type(problem).__name__}", str(problem)[:300] or "no message")
        close_quietly(self._session)
        self._session = None
        raise self._failure


def ask_reference(open_reference: OpenSession, inputs: Mapping[str, NDArray[np.generic]]) -> Tensors:
    """What the model as trained answers. Its errors pass: without a reference nothing can be validated."""
    with open_reference() as session:
        return session.run(inputs)


def close_quietly(session: Session | None) -> None:
    """End a session whose work is done; a process that dies while it is closed changes no verdict."""
    if session is None:
        return
    try:
        session.close()
    except Exception:
        return


def _key(inputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    state = hashlib.sha256()
    for name in sorted(inputs):
        values = np.ascontiguousarray(inputs[name])
        state.update(f"{name} {values.dtype} {values.shape}\n".encode() + values.tobytes())
    return state.digest()


def _failed(what: str, why: str) -> CandidateFailedError:
    return CandidateFailedError(
        f"the artifact did not answer: {what}", why=why, next="repair the artifact or its recipe and compile again"
    )
