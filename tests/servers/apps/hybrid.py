"""A site whose pages may have mixpanel-browser, for either door.

`/ACT` does something as the server, tracks it and answers a page; `/VERSION/ACT` answers the page
with that version of mixpanel-browser. The page's query holds the library's options as JSON.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mp_asgi import MixpanelMiddleware, MixpanelWSGIMiddleware, Tracker, get_tracker
from tests.servers.shops import TOKEN

FILES = Path(__file__).parents[3] / ".cache" / "managers"
SCRIPT = "mixpanel.js"
USER = "u-1"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shop</title>
<link rel="icon" href="data:,">
%s</head><body><h1>Shop</h1></body></html>"""
LIBRARY = """<script src="mixpanel.js"></script>
<script>
  // Where the library keeps its ID in localStorage, the page asks the server which one to go on with.
  async function agreeOnId() {
    const ids = {};
    for (const name of ["distinct_id", "$device_id", "$user_id", "$had_persisted_distinct_id"]) {
      ids[name] = mixpanel.get_property(name);
    }
    const answer = await fetch("/_mp/identity", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(ids),
    });
    const { distinct_id, $device_id } = await answer.json();
    if (!$device_id || $device_id === ids.$device_id) return;
    mixpanel.reset();
    mixpanel.register({ distinct_id, $device_id });
  }

  const options = JSON.parse(decodeURIComponent(location.search.slice(1)) || "{}");
  let agreed = null;
  options.loaded = (library) => {
    library.register(%s);
    if (options.persistence === "localStorage") agreed = agreeOnId();
  };
  mixpanel.init("%s", options);
</script>
"""
ACTS: Mapping[str, Callable[[Tracker], object]] = {
    "grant": lambda tracker: tracker.consent.grant(),
    "withdraw": lambda tracker: tracker.consent.withdraw(),
    "login": lambda tracker: tracker.identify(USER),
    "logout": lambda tracker: tracker.reset(new_device=True),
}


def answer(path: str, tracker: Tracker) -> tuple[Mapping[str, str], bytes]:
    """Answer the headers and the body of a path."""
    *version, name = path.strip("/").split("/")
    if name == SCRIPT:
        file = FILES / f"mixpanel-browser-{version[0]}" / "dist" / "mixpanel.umd.js"
        return {
            "content-type": "text/javascript",
            "cache-control": "max-age=600",
        }, file.read_bytes()
    if name in ACTS:
        ACTS[name](tracker)
    tracker.track(name)
    library = LIBRARY % (json.dumps(tracker.bootstrap if name == "inline" else {}), TOKEN)
    page = PAGE % (library if version else "")
    return {"content-type": "text/html; charset=utf-8"}, page.encode()


async def serve_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(f"Cannot handle {scope['type']}.")
    headers, body = answer(scope["path"], get_tracker(scope))
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def serve_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    headers, body = answer(environ["PATH_INFO"], get_tracker(environ))
    start_response("200 OK", [*headers.items()])
    return [body]


def make_asgi() -> MixpanelMiddleware:
    return MixpanelMiddleware(serve_asgi)


def make_wsgi() -> MixpanelWSGIMiddleware:
    return MixpanelWSGIMiddleware(serve_wsgi)
