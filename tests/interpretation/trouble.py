"""Stand-ins that behave as servers in trouble do."""

from __future__ import annotations

import json
import threading

from fluxtionary.demo.stand_in import StandIn, completion


class Troubled(StandIn):
    """Calls `trouble(number, handler, request)` first, which may answer itself and return true.

    Attributes:
        asked: requests that came.
        paid: bodies of those that got a completion, good or bad.
        connections: addresses they came from.
    """

    def __init__(self, trouble=lambda number, handler, request: False, port: int = 0):
        super().__init__(port)
        self.trouble, self.asked, self.paid, self.connections = trouble, 0, [], set()
        self._counting = threading.Lock()

    def reply(self, handler, body):
        with self._counting:
            self.asked += 1
            number = self.asked
            self.connections.add(handler.client_address)
        if self.trouble(number, handler, json.loads(body)):
            return
        with self._counting:
            self.paid.append(body)
        super().reply(handler, body)

    def says(self, content, refusal=None, finish="stop"):
        """A trouble: a completion that says something else; paid like any other."""

        def trouble(number, handler, request):
            with self._counting:
                self.paid.append(json.dumps(request).encode())
            answer = completion(request)
            answer["choices"][0]["message"] = {"role": "assistant", "content": content, "refusal": refusal}
            answer["choices"][0]["finish_reason"] = finish
            handler.send(200, answer)
            return True

        return trouble


def fails(status, headers=None):
    """A trouble: an error of the server."""

    def trouble(number, handler, request):
        handler.send(status, {"error": {"message": f"error {status}"}}, headers)
        return True

    return trouble
