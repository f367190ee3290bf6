"""An OpenAI-compatible chat endpoint: one text in, one text out, with retries."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rmo_train.console.errors import UserError
from rmo_train.evaluation.winrate.needs import needed

KEY = "OPENAI_API_KEY"  # environment variable; sent as the bearer token, never stored
TRIES = 6
FIRST_WAIT = 1.0  # seconds before the second try; doubled before each further one
LONGEST_WAIT = 60.0
ANSWER_LIMIT = 600.0  # seconds for one reply: a large model on a busy server
CONNECT_LIMIT = 10.0
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # status codes that may be temporary
# Settings that some models reject -> the setting to use instead.
REFUSED = {"max_tokens": "max_completion_tokens", "temperature": None}


class NoReply(Exception):
    """The endpoint did not reply to one text; the message says why."""


class Unavailable(NoReply):
    """The server was unreachable or busy in all tries, so other texts would fail too."""


class Endpoint:
    """A chat endpoint and one of its models. Use it as an async context manager."""

    def __init__(self, url: str, model: str, tokens: int):
        self.http = needed("httpx2", "judges")
        self.url, self.model = base_of(url), model
        self.body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": tokens}
        self.reached = False  # whether it has ever answered; until then, errors are the user's settings
        key = os.environ.get(KEY)
        self.client = self.http.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.http.Timeout(ANSWER_LIMIT, connect=CONNECT_LIMIT),
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()

    async def reply(self, text: str) -> str:
        """The model's answer to `text`; NoReply if there is none, UserError if there never can be one."""
        wait, said = FIRST_WAIT, ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            try:
                response = await self._post({**self.body, "messages": [{"role": "user", "content": text}]})
            except (self.http.InvalidURL, self.http.UnsupportedProtocol) as e:
                raise UserError(f"--judge {self.url}: {e}; expected a URL such as http://localhost:8000/v1") from e
            except self.http.TransportError as e:
                said = f"{type(e).__name__}: {e}".removesuffix(": ")
                if not self.reached:
                    raise UserError(f"--judge {self.url}: no answer ({said}); is the server running?") from e
                continue
            if response.status_code == 200:
                return self._content(response)
            said = f"status {response.status_code}: {_message(response)}"
            if response.status_code not in BUSY:
                await self._refused(response, said)
            wait = max(wait, min(_retry_after(response), LONGEST_WAIT))
        raise Unavailable(f"{said} ({TRIES} tries)")

    async def _post(self, body: dict[str, Any]) -> Any:
        """The response; a setting that the model rejects is replaced or left out from now on."""
        while True:
            response = await self.client.post(f"{self.url}/chat/completions", json=body)
            refused = next((name for name in REFUSED if name in body and _refuses(response, name)), None)
            if refused is None:
                return response
            for settings in (body, self.body):
                value, instead = settings.pop(refused, None), REFUSED[refused]
                if instead and value is not None:
                    settings[instead] = value

    def _content(self, response: Any) -> str:
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as e:
            said = f"its reply is not a chat completion: {response.text[:80]!r}"
            if not self.reached:
                raise UserError(f"--judge {self.url}: {said}; expected an OpenAI-compatible endpoint") from e
            raise NoReply(said) from e
        self.reached = True
        return content or ""  # empty if a reasoning model ran out of tokens

    async def _refused(self, response: Any, said: str) -> None:
        """Raise the error for a permanent status."""
        if response.status_code in (401, 403):
            raise UserError(f"--judge {self.url}: the key was refused ({said}); set {KEY} to a valid one")
        if response.status_code == 404 and not self.reached:
            known = await self._models()
            if known and self.model not in known:
                raise UserError(
                    f"--judge-model {self.model}: not found at {self.url} ({said}); it serves "
                    f"{', '.join(sorted(known)[:10])}"
                )
            raise UserError(
                f"--judge {self.url}, --judge-model {self.model}: not found ({said}); expected the base URL "
                "of /chat/completions, such as http://localhost:8000/v1, and a model that it serves"
            )
        raise NoReply(said)

    async def _models(self) -> list[str]:
        """The model names that the endpoint lists; empty if it has no list."""
        try:
            response = await self.client.get(f"{self.url}/models")
            return [str(one["id"]) for one in response.json()["data"]]
        except (self.http.HTTPError, ValueError, KeyError, TypeError):
            return []


def base_of(url: str) -> str:
    """The base URL of /chat/completions; refuses a URL with a key in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--judge {url}: not a URL; expected one such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query:
        raise UserError(f"--judge: the URL contains a key or a query; expected the URL alone, and the key in {KEY}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _message(response: Any) -> str:
    """What an error response says, on one line."""
    try:
        error = response.json()
        error = error.get("error", error)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:200]


def _refuses(response: Any, setting: str) -> bool:
    """Whether a response says that the model does not accept `setting`."""
    if response.status_code != 400:
        return False
    try:
        return response.json()["error"]["param"] == setting
    except (ValueError, KeyError, TypeError):
        return False


def _retry_after(response: Any) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 0.0
