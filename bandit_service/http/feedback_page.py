"""The page on which a user votes on one answer: one document without scripts or third-party assets.

It works as a plain form. Its content security policy allows only its own style, by hash, and its
form.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #f4f6f8; --panel: #fff; --ink: #14181f;
  --muted: #566171; --line: #8a94a3; --accent: #1f4fc0; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1217; --panel: #161b22; --ink: #e8ecf1;
  --muted: #9eabba; --line: #6b7683; --accent: #82abff; --on: #0e1217; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground);
  color: var(--ink);
  font: 17px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { width: min(34rem, 100%); margin: 1rem 0; padding: 1.5rem; background: var(--panel);
  border-radius: 10px; }
h1 { margin: 0 0 1rem; font-size: 1.35rem; line-height: 1.3; }
p { margin: 1rem 0 0; }
form { display: flex; flex-wrap: wrap; gap: .75rem; }
button { flex: 1 1 8rem; min-height: 3rem; padding: .5rem 1rem; font: inherit; color: var(--ink);
  background: transparent; border: 2px solid var(--line); border-radius: 8px; cursor: pointer; }
button[aria-pressed="true"] { background: var(--accent); border-color: var(--accent);
  color: var(--on); font-weight: 650; }
button:hover { border-color: var(--accent); }
button:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
.muted { color: var(--muted); font-size: .9rem; }
"""

_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # the form of a page without referrer sends no origin
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Vary": "Accept",
}

_CHOICES = {"up": "Good answer", "down": "Bad answer", "neutral": "No vote"}
_SAID = {
    "up": "You voted: good answer. You can change your vote.",
    "down": "You voted: bad answer. You can change your vote.",
    "neutral": "You have not voted.",
}


def page(vote: str, expires: float) -> str:
    """The page with the present vote."""
    buttons = "\n".join(
        f'<button name="vote" value="{value}" aria-pressed="{str(value == vote).lower()}">'
        f"{words}</button>"
        for value, words in _CHOICES.items()
    )
    until = datetime.fromtimestamp(expires, UTC)
    return _document(
        "Was this answer good?",
        f"""<form method="post">
{buttons}
</form>
<p role="status">{_SAID[vote]}</p>
<p class="muted">Your vote helps to choose the model for later questions. This page works until
<time datetime="{until:%Y-%m-%dT%H:%M:%SZ}">{until:%Y-%m-%d %H:%M} UTC</time>.</p>""",
    )


def error_page(message: str) -> str:
    """The page that a browser gets instead of an error's JSON."""
    return _document("This vote cannot be taken", f'<p role="alert">{escape(message)}</p>')


def _document(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
