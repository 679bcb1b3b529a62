"""Answer a run over HTTP, from any machine, with the standard library alone.

python examples/label_client.py http://HOST:PORT TOKEN  # that of `rlhp labeler add NAME RUN`
"""

import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any


class Client:
    """The JSON interface of `rlhp serve`; /openapi.json there describes all of it."""

    def __init__(self, url: str, token: str, *, page: str = "client") -> None:
        self.url, self.page = url.rstrip("/"), page
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def get(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        data = None if body is None else json.dumps({"page": self.page, **body}).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=self.headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bytes(reply.read())

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        while True:
            try:
                return dict(json.loads(self.get(path, body)))
            except urllib.error.HTTPError as error:
                if error.code != 503:  # the queue is away for a moment: call again
                    raise
                time.sleep(2)


def choose(left: bytes, right: bytes) -> str:
    """Your model goes here. This one likes the clip that is harder to compress."""
    return "left" if len(left) > len(right) else "right" if len(right) > len(left) else "tie"


def label(client: Client) -> int:
    """Answers until the run is over; how many."""
    count = 0
    while True:
        found = client.post("/api/leases")
        for lease in found["leases"]:
            said = choose(client.get(lease["left"]), client.get(lease["right"]))
            lent = {name: lease[name] for name in ("query", "token", "rev")}
            client.post("/api/answers", **lent, choice=said, kind="script")
            count += 1
        if not found["leases"]:
            if found["waiting"]["reason"] in ("closed", "spent", "paused"):
                return count
            time.sleep(1)


if __name__ == "__main__":
    print(label(Client(sys.argv[1], sys.argv[2])), "answers")
