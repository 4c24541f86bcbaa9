"""A proposer that requests answers from an external program, and validates them strictly."""

from __future__ import annotations

import abc
import dataclasses
import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from metabolismgraph.config import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposal import (
    IterationReading,
    Mutation,
    Proposal,
    Reading,
    Slot,
    StrategyFile,
    Submission,
)
from metabolismgraph.explore.proposers.base import Answer, Exchange, InvalidAnswerError, Proposer, UnavailableError
from metabolismgraph.explore.proposers.prompt import (
    QUESTIONS,
    Context,
    Prompt,
    for_proposal,
    for_reading,
    for_submission,
)
from metabolismgraph.explore.proposers.standing import MOST_MEMORY
from metabolismgraph.explore.state import State
from metabolismgraph.files import is_fault_of_disk, write_bytes
from metabolismgraph.processes import without_secrets
from metabolismgraph.text import one_line

MOST_CHARACTERS = 200_000  # of an answer
_MOST_PROBLEMS = 3
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PARTS: dict[str, type[BaseModel]] = {
    "mutations": Mutation,
    "start": Mutation,
    "iterations": IterationReading,
    "file": StrategyFile,
}

T = TypeVar("T", bound=BaseModel)


class Transport(abc.ABC):
    """A way to get one answer to one prompt.

    Attributes:
        name: in the journal.
        shows_images: whether it passes on figures.
    """

    name: str
    shows_images: bool = True

    @abc.abstractmethod
    def ask(self, prompt: Prompt, attempts: int = 1) -> Exchange:
        """Send the prompt, and return the answer.

        Args:
            attempts: number of answers at most, for a transport that itself sends back answers that do not fit the
                schema.

        Raises:
            UnavailableError: there was no answer.
        """


class AskingProposer(Proposer):
    """Sends every question through a transport, and keeps a copy.

    Args:
        folder: of the exploration; figures of its runs are shown, and questions kept in `questions/`.
    """

    def __init__(self, transport: Transport, folder: Path):
        self.name, self._transport = transport.name, transport
        self._folder, self._questions = folder, folder / QUESTIONS

    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        prompt = for_proposal(state, iteration, slot.number, refusals, self._context)
        exchange = self._ask(prompt, state, iteration, refusals)
        return Answer(parsed_proposal(exchange), exchange)

    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        exchange = self._ask(for_reading(state, batch, refusals, self._context), state, batch[0], refusals)
        return Answer(parsed_reading(exchange, batch), exchange)

    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        first = state.first_of(block)
        exchange = self._ask(for_submission(state, block, refusals, self._context), state, first, refusals)
        return Answer(parsed_submission(exchange), exchange)

    @property
    def _context(self) -> Context:
        return Context(self._folder, self._transport.shows_images, self.iterations, self.takes_files)

    def _ask(self, prompt: Prompt, state: State, iteration: int, refusals: Sequence[str]) -> Exchange:
        started = time.perf_counter()
        try:
            left = _attempts_left(prompt, state, iteration)
            # The journal holds the answers only, since questions are long.
            self._questions.mkdir(parents=True, exist_ok=True)
            name = f"{iteration:04d}-{prompt.kind}-{len(refusals)}.txt"
            write_bytes(self._questions / name, prompt.in_words().encode(errors="backslashreplace"))
            exchange = self._transport.ask(prompt, left)
        except UnavailableError as error:
            reason = recordable(one_line(error))
            exchange = dataclasses.replace(_recordable(error.exchange), answer=None, error=reason)
            raise UnavailableError(reason, exchange) from error
        except Exception as error:
            if is_fault_of_disk(error):
                raise InputError(f"{self._questions}: {one_line(error)}; make room, then `explore resume`") from None
            # After any error of a library the exploration continues without an answer.
            reason = recordable(one_line(f"{type(error).__name__}: {error}"))
            exchange = Exchange(None, reason, seconds=time.perf_counter() - started)
            raise UnavailableError(reason, exchange) from error
        return _recordable(exchange)


def _attempts_left(prompt: Prompt, state: State, iteration: int) -> int:
    """How many more answers to a question may be asked for.

    Raises:
        UnavailableError: none.
    """
    earlier = (a for a in state.answered if (a.kind, a.iteration) == (prompt.kind, iteration))
    used = sum(len(a.invalid) + (a.answer is not None) for a in earlier)
    if used >= state.settings.attempts:
        reason = f"{used} answers were refused"
        raise UnavailableError(reason, Exchange(None, reason))
    return state.settings.attempts - used


def _recordable(exchange: Exchange) -> Exchange:
    invalid = tuple(map(recordable, exchange.invalid))
    return dataclasses.replace(exchange, answer=recordable(exchange.answer or ""), invalid=invalid)


def recordable(answer: str) -> str:
    """An answer for the journal: without keys, cut above the limit, with lone surrogates as escape sequences."""
    return without_secrets(answer)[: MOST_CHARACTERS + 1].encode("utf-8", "backslashreplace").decode()


def parsed_proposal(exchange: Exchange) -> Proposal:
    """The proposal in an answer.

    Raises:
        InvalidAnswerError: the answer holds no proposal.
    """
    return parsed(exchange, Proposal)


def parsed_submission(exchange: Exchange) -> Submission:
    """The submission in an answer.

    Raises:
        InvalidAnswerError: the answer holds no submission.
    """
    return parsed(exchange, Submission)


def parsed_reading(exchange: Exchange, batch: Sequence[int]) -> Reading:
    """The reading of a batch in an answer, with iterations in order.

    Raises:
        InvalidAnswerError: the answer holds no reading, or one of other iterations.
    """
    reading = parsed(exchange, Reading)
    found = tuple(sorted(reading.iterations, key=lambda entry: entry.iteration))
    numbers = [entry.iteration for entry in found]
    if numbers != sorted(batch):
        wanted = ", ".join(map(str, batch))
        got = one_line(", ".join(map(str, numbers)) or "none", 100)
        raise InvalidAnswerError(f"iterations: expected each of {wanted} exactly once, found {got}", exchange)
    if len(reading.memory) > MOST_MEMORY:
        raise InvalidAnswerError(
            f"memory has {len(reading.memory)} characters, expected at most {MOST_MEMORY}; shorten it", exchange
        )
    return reading.model_copy(update={"iterations": found})


def parsed(exchange: Exchange, schema: type[T]) -> T:
    """The answer of an exchange, validated strictly.

    Raises:
        InvalidAnswerError: the answer holds no JSON object that fits the schema.
    """
    answer = exchange.answer or ""
    try:
        text = _json_in(answer)
        _check_text(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite))
        # JSON mode with strict types: "3" and 3.0 are not whole numbers, but lists are read as tuples.
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidAnswerError(_problems(error, schema), exchange) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InvalidAnswerError(f"not valid JSON: {error.msg} at {place}; give one JSON object", exchange) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidAnswerError(one_line(reason), exchange) from None


def _json_in(answer: str) -> str:
    """The one JSON object of an answer, which may be in a code fence or between sentences.

    Raises:
        ValueError: the answer has no JSON object, or more than one.
    """
    if len(answer) > MOST_CHARACTERS:
        raise ValueError(f"the answer has more than {MOST_CHARACTERS} characters; give a shorter one")
    text = answer.strip().removeprefix("\ufeff")
    if not text:
        raise ValueError("the answer is empty; give one JSON object")
    if text.startswith("{"):
        return text
    fenced: list[str] = [block.strip() for block in _FENCE.findall(text)]
    objects = [block for block in fenced if block.startswith("{")] or list(_objects(text))
    if not objects:
        raise ValueError(f"there is no JSON object in the answer, which begins {one_line(text, 60)!r}")
    if len(objects) > 1:
        raise ValueError(f"there are {len(objects)} JSON objects in the answer; give exactly one")
    return objects[0]


def _objects(text: str) -> Iterable[str]:
    """Yield the JSON objects in running text, from left to right, without nested ones."""
    decoder, at = json.JSONDecoder(), text.find("{")
    for _ in range(100):
        if at < 0:
            return
        try:
            _, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            yield text[at:end]
        at = text.find("{", end)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{one_line(key, 60)} is given twice; keep one")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON; give a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{one_line(text, 60)} is too large a number")
    return value


def _check_text(value: object, where: str = "") -> None:
    """Refuse control characters, which could control a terminal.

    Raises:
        ValueError: the value has one.
    """
    if isinstance(value, str) and (found := _CONTROL.search(value)):
        raise ValueError(f"{where or 'the answer'} holds the control character {found.group()!r}; leave it out")
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_text(key)
            _check_text(entry, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for entry in value:
            _check_text(entry, where)


def _problems(error: ValidationError, schema: type[BaseModel]) -> str:
    """The errors of pydantic on one line, with a hint at the correction."""
    problems = error.errors(include_url=False)
    found = [_problem(problem["type"], problem["loc"], problem, schema) for problem in problems[:_MOST_PROBLEMS]]
    more = f" (and {len(problems) - _MOST_PROBLEMS} more)" if len(problems) > _MOST_PROBLEMS else ""
    return one_line("; ".join(found) + more, 500)


def _problem(kind: str, loc: tuple[int | str, ...], problem: Any, schema: type[BaseModel]) -> str:
    where = one_line(".".join(map(str, loc)), 80) or "the answer"
    names = [part for part in loc[:-1] if isinstance(part, str)]
    fields = list((_PARTS[names[-1]] if names and names[-1] in _PARTS else schema).model_fields)
    if kind == "extra_forbidden":
        near = nearest_name(str(loc[-1]), fields)
        return f"{where}: there is no such field; did you mean {near}? (fields: {', '.join(fields)})"
    if kind == "missing":
        return f"{where} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return f"{where} {message}"
    return f"{where}: expected {message}, found {one_line(json.dumps(problem['input'], default=str), 60)}"
