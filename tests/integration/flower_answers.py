"""What a Flower says, to whoever has its login."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.servers.product import FlowerProcess


def get_page(flower: FlowerProcess, path: str) -> str:
    """The text at an address."""
    headers = {"Authorization": f"Basic {b64encode(flower.login.encode()).decode()}"}
    with urllib.request.urlopen(urllib.request.Request(flower.url + path, headers=headers), timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def queue_lengths(flower: FlowerProcess) -> dict[str, int]:
    """How many tasks wait, by queue."""
    answer: Any = json.loads(get_page(flower, "/api/queues/length"))
    return {queue["name"]: queue["messages"] for queue in answer["active_queues"]}


def worker_names(flower: FlowerProcess) -> set[str]:
    """The workers that it knows of, asked anew."""
    return set(json.loads(get_page(flower, "/api/workers?refresh=1")))
