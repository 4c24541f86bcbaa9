"""Answers from a language model, through pydantic-ai (extra `llm`).

A question is one conversation of an agent of pydantic-ai. The model answers by calling a tool whose arguments have the
schema of the answer, or in text. The agent sends an answer that does not fit back to the model, with the reason. The
libraries repeat requests after temporary failures: a rate limit, a server error, a lost connection. All answers are
passed on word for word, and the caller validates the last one once more, strictly.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel

from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposers.asking import AskingProposer, Transport, parsed
from metabolismgraph.explore.proposers.base import Exchange, InvalidAnswerError, UnavailableError
from metabolismgraph.explore.proposers.prompt import Prompt
from metabolismgraph.text import one_line

_MOST_BYTES = 8_000_000  # of a response
_MOST_TOKENS = 16_000  # of an answer, for servers that need a limit; the memory takes some ten thousand
_SHORTEST_KEY = 12  # characters; a shorter key is a placeholder, which may also be a word of an answer
_TOOL = "answer"

_USUAL_KEY = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


class _Server(NamedTuple):
    """The server of a model; its kind is openai, anthropic, or compatible, which uses OpenAI's chat protocol."""

    kind: str
    model: str
    url: str | None


class LLMTransport(Transport):
    """Sends prompts to the language model in the settings.

    Raises:
        InputError: on construction: the extra is not installed, model or key are missing, or a budget in money is set
            for a model whose price is not known.
    """

    def __init__(self, settings: Exploration):
        try:
            import anthropic  # noqa: F401, PLC0415
            import openai  # noqa: F401, PLC0415
            import pydantic_ai  # noqa: F401, PLC0415
        except ImportError:
            raise InputError(
                "exploration.proposer is llm, but pydantic-ai is not installed; pip install 'metabolismgraph[llm]'"
            ) from None
        self._settings = settings
        self._server = _server(settings)
        self.name = f"llm ({self._server.model})"
        self._key = _key(settings, self._server)
        self.shows_images = settings.llm_images
        if settings.max_cost is not None:
            _check_price(settings, self._server)

    def ask(self, prompt: Prompt, attempts: int = 1) -> Exchange:
        from pydantic_ai import capture_run_messages  # noqa: PLC0415

        started, problem = time.perf_counter(), ""
        with capture_run_messages() as messages:
            try:
                asyncio.run(self._converse(prompt, attempts))
            except Exception as error:
                problem = self._without_key(self._explained(error))
        responses = [message for message in messages if message.kind == "response"]
        answers = [self._without_key(answer) for answer in map(_answer_in, responses) if answer is not None]
        exchange = Exchange(
            None if problem else answers[-1],
            problem or None,
            sum(response.usage.input_tokens for response in responses),
            sum(response.usage.output_tokens for response in responses),
            sum(map(self._cost, responses), 0.0),
            time.perf_counter() - started,
            tuple(answers if problem else answers[:-1]),
        )
        if problem:
            raise UnavailableError(problem, exchange)
        return exchange

    async def _converse(self, prompt: Prompt, attempts: int) -> None:
        """Ask until an answer fits the schema; all requests together stay within the time limit."""
        from pydantic_ai import Agent, BinaryContent, TextOutput, ToolOutput  # noqa: PLC0415
        from pydantic_ai.models import create_async_httpx2_client  # noqa: PLC0415
        from pydantic_ai.settings import ModelSettings  # noqa: PLC0415

        images = [BinaryContent(path.read_bytes(), media_type="image/png") for path in prompt.images]
        settings = ModelSettings(tool_choice=[_TOOL])
        if self._server.kind == "anthropic":
            settings["max_tokens"] = _MOST_TOKENS
        # Not strict: values of mutations may be of any type, which strict schemas cannot express.
        about = f"Give the answer. {prompt.schema.__doc__}"
        tool = ToolOutput(prompt.schema, name=_TOOL, description=about, strict=False)
        # One client per question: its connections belong to the event loop, which ends with the question.
        async with asyncio.timeout(self._settings.llm_timeout_s), create_async_httpx2_client() as client:
            client.event_hooks["response"].append(_bound)
            agent = Agent(
                self._model(client),
                # Some servers do not know tools, and answer in text.
                output_type=[tool, TextOutput(_reader(prompt.schema))],
                system_prompt=prompt.system,
                retries={"output": attempts - 1},
            )
            message: str | Sequence[Any] = [prompt.text, *images] if images else prompt.text
            await agent.run(message, model_settings=settings)

    def _model(self, client: Any) -> Any:
        kind, model, url = self._server
        if kind == "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415
            from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415

            return AnthropicModel(model, provider=AnthropicProvider(api_key=self._key, http_client=client))
        if url is None:
            from pydantic_ai.models.openai import OpenAIResponsesModel  # noqa: PLC0415
            from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415

            return OpenAIResponsesModel(model, provider=OpenAIProvider(api_key=self._key, http_client=client))
        from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415
        from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider  # noqa: PLC0415

        # Without exploration.llm_key_variable no key is sent; the library needs a text in its place.
        key = self._key or "none"
        provider = OpenAICompatibleProvider("compatible", base_url=url, api_key=key, http_client=client)
        return OpenAIChatModel(model, provider=provider)

    def _explained(self, error: Exception) -> str:
        from pydantic_ai.exceptions import (  # noqa: PLC0415
            ModelAuthenticationError,
            ModelHTTPError,
            UnexpectedModelBehavior,
        )

        if isinstance(error, ModelAuthenticationError):
            # The message of the server may quote the key, or part of it.
            return "the server did not accept the key; check the environment variable that holds it"
        if _is_too_long(error):
            return f"the response has more than {_MOST_BYTES} bytes"
        if isinstance(error, TimeoutError):
            return f"no answer within exploration.llm_timeout_s = {self._settings.llm_timeout_s:g} s"
        if isinstance(error, ModelHTTPError):
            return one_line(f"the server answered with HTTP {error.status_code}: {error.body}")
        if isinstance(error, UnexpectedModelBehavior) and error.__cause__ is not None:
            return one_line(f"{error}: {error.__cause__}")
        return one_line(f"{type(error).__name__}: {error}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_KEY else text

    def _cost(self, response: Any) -> float:
        usage, price = response.usage, self._settings.llm_price_per_million
        if price is not None:
            return float((usage.input_tokens * price[0] + usage.output_tokens * price[1]) / 1e6)
        try:
            return float(response.cost().total_price)
        except (AssertionError, LookupError, ValueError):
            return 0.0  # a model without a listed price


def _server(settings: Exploration) -> _Server:
    written, url = settings.llm_model.strip(), settings.llm_base_url
    provider, _, rest = written.partition(":")
    if not written or (provider in _USUAL_KEY and not rest):
        raise InputError(
            "exploration.llm_model names no model; set it to openai:NAME or anthropic:NAME, or set "
            "exploration.llm_base_url and the name that the server there knows"
        )
    if url is not None:
        _check_url(url)
        if provider == "anthropic":
            raise InputError(
                "exploration.llm_base_url is for servers with the OpenAI protocol; leave it out for anthropic:"
            )
        return _Server("compatible", rest if provider == "openai" else written, url)
    if provider in _USUAL_KEY:
        return _Server(provider, rest, None)
    raise InputError(
        f"exploration.llm_model is {one_line(written, 60)!r}, expected openai:NAME or anthropic:NAME; for another "
        "server set exploration.llm_base_url as well"
    )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        found = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found:
        raise InputError("exploration.llm_base_url is not an address; expected one such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise InputError(
            "exploration.llm_base_url holds a name or password; put the key into an environment variable and name "
            "that in exploration.llm_key_variable"
        )


def _key(settings: Exploration, server: _Server) -> str:
    """The key; empty where none is needed."""
    named = settings.llm_key_variable
    if named is not None and not re.fullmatch(r"[A-Za-z_]\w*", named, re.ASCII):
        # Not shown: it may be the key itself.
        raise InputError(
            "exploration.llm_key_variable is not the name of an environment variable; put the key into a variable"
        )
    variable = named or _USUAL_KEY.get(server.kind)
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    where = "the variable that exploration.llm_key_variable names" if named else variable
    if not key:
        raise InputError(f"no key for {server.model}: set the environment variable ({where}) to it")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the key for {server.model} holds characters that no key has; set it again ({where})")
    return key


def price_per_million(settings: Exploration) -> tuple[float, float] | None:
    """Price of a million input and output tokens of the model in the settings, in US dollars; None: it is not known.

    Raises:
        InputError: the settings name no model.
    """
    if settings.llm_price_per_million is not None:
        return settings.llm_price_per_million
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    server = _server(settings)
    try:
        if server.kind == "compatible":
            return None
        # Of a thousand tokens, since some prices rise for longer prompts.
        found = calc_price(Usage(input_tokens=1000, output_tokens=1000), server.model, provider_id=server.kind)
    except LookupError:
        return None
    return float(found.input_price) * 1000, float(found.output_price) * 1000


def _check_price(settings: Exploration, server: _Server) -> None:
    if price_per_million(settings) is None:
        raise InputError(
            f"exploration.max_cost is set, but the price of {server.model} is not known; set "
            "exploration.llm_price_per_million to [input, output], [0, 0] for a server of your own"
        )


def _reader(schema: type[BaseModel]) -> Any:
    """The reader of answers in text, which the agent sends back with the reason if they do not fit the schema."""
    from pydantic_ai import ModelRetry  # noqa: PLC0415

    def read(text: str) -> BaseModel:
        try:
            return parsed(Exchange(text), schema)
        except InvalidAnswerError as error:
            raise ModelRetry(str(error)) from None

    return read


def _answer_in(response: Any) -> str | None:
    """The answer in a response, word for word; None if a content filter withheld it."""
    calls = [part for part in response.parts if part.part_kind == "tool-call"]
    if calls:
        return "\n".join(c.args if isinstance(c.args, str) else json.dumps(c.args or {}) for c in calls)
    text = "".join(part.content for part in response.parts if part.part_kind == "text")
    text = text or str((response.provider_details or {}).get("refusal") or "")
    return None if not text and response.finish_reason == "content_filter" else text


class _TooLongError(Exception):
    pass


async def _bound(response: Any) -> None:
    """Limit the length of the body of a response; a longer one ends with an error."""
    from httpx2 import AsyncByteStream  # noqa: PLC0415

    class Bounded(AsyncByteStream):
        def __init__(self, stream: AsyncByteStream):
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            async for chunk in self._stream:
                read += len(chunk)
                if read > _MOST_BYTES:
                    raise _TooLongError
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    response.stream = Bounded(response.stream)


def _is_too_long(error: BaseException | None) -> bool:
    """Whether an error is caused by a response that is too long; libraries wrap it in other errors."""
    while error is not None and not isinstance(error, _TooLongError):
        error = error.__cause__ or error.__context__
    return error is not None


def make(settings: Exploration, folder: Path, record: Path | None) -> AskingProposer:
    """Make the proposer for the registry."""
    del record
    return AskingProposer(LLMTransport(settings), folder)
