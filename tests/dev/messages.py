"""Messages that Mixpanel takes and refuses, and the request that carries them."""

from typing import Any

import httpx

NOW = 1_800_000_000.0
GOOD = {"event": "A", "properties": {"time": NOW, "distinct_id": "U", "$insert_id": "i-1"}}
BAD = {"event": "A", "properties": {"time": "x", "distinct_id": "U", "$insert_id": "i-2"}}
TRACKED = {"event": "A", "properties": {"token": "T"}}
PERSON = {"$token": "T", "$distinct_id": "U", "$set": {"a": 1}}
GROUP = {"$token": "T", "$group_key": "k", "$group_id": "g", "$set": {"a": 1}}
INVALID = "some data points in the request failed validation"


def post_import(
    client: httpx.Client,
    *events: Any,
    query: str = "?strict=1",
    user: str = "T",
    password: str = "",
) -> httpx.Response:
    return client.post(f"/import{query}", json=list(events), auth=(user, password))
