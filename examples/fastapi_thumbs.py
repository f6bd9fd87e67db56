"""A chat page with thumbs, in FastAPI.

The service decides which model answers and asks it, the page shows the answer with a thumb up and
a thumb down, and a press of one teaches the router. The page votes with the answer's feedback
token, which is good for that one answer and for nothing else; the service's key stays on the
server. Cost and latency are learned by the gateway.

    pip install ./bandit_client fastapi openai uvicorn      # in a clone
    bandit-service upstream --data paretobandit --write-config gateway.toml     # recorded answers
    bandit-service serve --config gateway.toml              # in another terminal
    python examples/fastapi_thumbs.py                       # http://127.0.0.1:8000

For models of your own write gateway.toml yourself (docs/five-minutes.md). BANDIT_URL and BANDIT_KEY
name another service, PORT another port.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from bandit_client import AsyncClient, BanditError, NotReached, ServiceError

URL = os.environ.get("BANDIT_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("BANDIT_KEY", "none")


class Question(BaseModel):
    """What a user asks."""

    text: str = Field(min_length=1, max_length=4000)


class Answer(BaseModel):
    """What the page shows. token: the right to vote on this answer."""

    model: str
    text: str
    token: str


class Press(BaseModel):
    """A thumb on an answer; neutral takes it back."""

    token: str = Field(min_length=1, max_length=512)
    vote: str = Field(pattern="^(up|down|neutral)$")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client of each kind for all requests: OpenAI's asks, the router's votes."""
    async with (
        AsyncClient() as router,
        openai.AsyncOpenAI(base_url=f"{URL.rstrip('/')}/v1", api_key=KEY) as gateway,
    ):
        app.state.router, app.state.gateway = router, gateway
        yield


app = FastAPI(title="Thumbs", lifespan=lifespan)


@app.post("/ask")
async def ask(question: Question, request: Request) -> Answer:
    """The answer of the model that the router chooses; its quality comes from the thumbs."""
    gateway: openai.AsyncOpenAI = request.app.state.gateway
    raw = await gateway.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": question.text}]
    )
    text = raw.parse().choices[0].message.content or ""
    return Answer(
        model=raw.headers["x-arm"], text=text, token=raw.headers.get("x-feedback-token", "")
    )


@app.post("/vote")
async def vote(press: Press, request: Request) -> dict[str, str]:
    """Pass a thumb on; the last one counts."""
    router: AsyncClient = request.app.state.router
    return {"vote": (await router.vote(press.token, press.vote)).vote}


@app.exception_handler(openai.APIError)
async def failed(_: Request, error: Exception) -> JSONResponse:
    """What the gateway answered, in its own words; 503 where it is not there."""
    if isinstance(error, openai.APIConnectionError):
        return JSONResponse({"error": f"no gateway at {URL}"}, status_code=503)
    status = error.status_code if isinstance(error, openai.APIStatusError) else 502
    body = error.body if isinstance(error, openai.APIError) else None
    words = body.get("message") if isinstance(body, dict) else None
    return JSONResponse({"error": words or str(error)}, status_code=status)


@app.exception_handler(BanditError)
async def refused(_: Request, error: Exception) -> JSONResponse:
    """What the router refused, in its own words; 503 where it is not there."""
    status = 503 if isinstance(error, NotReached) else 502
    if isinstance(error, ServiceError):
        status = error.status
    return JSONResponse({"error": str(error)}, status_code=status)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """The page; it asks nothing of elsewhere."""
    return PAGE


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Thumbs</title>
<style>
body { font: 1rem system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
form { display: flex; gap: .5rem }
input { flex: 1 }
button[aria-pressed=true] { outline: 2px solid }
</style>
<h1>Ask</h1>
<form>
  <input name="text" aria-label="Your question" required maxlength="4000"><button>Ask</button>
</form>
<div id="answers" aria-live="polite"></div>
<script>
const headers = { "content-type": "application/json" };
const send = async (path, body) => {
  const said = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const told = await said.json();
  if (!said.ok) throw new Error(told.error ?? JSON.stringify(told.detail));
  return told;
};
const thumb = (shown, token, vote, sign) => {
  const button = document.createElement("button");
  Object.assign(button, { textContent: sign, title: vote, ariaPressed: "false" });
  button.onclick = async () => {
    const taken_back = button.ariaPressed === "true";
    await send("/vote", { token, vote: taken_back ? "neutral" : vote });
    for (const each of shown.querySelectorAll("button")) each.ariaPressed = "false";
    button.ariaPressed = String(!taken_back);
  };
  shown.append(button);
};
const show = ({ model, text, token }) => {
  const shown = document.createElement("p");
  shown.textContent = `${model}: ${text} `;
  if (token) thumb(shown, token, "up", "👍"), thumb(shown, token, "down", "👎");
  document.querySelector("#answers").prepend(shown);
};
document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    show(await send("/ask", { text: event.target.text.value }));
  } catch (error) {
    alert(error.message);
  }
};
</script>
</html>
"""

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
