"""What a browser is told when it asks for something that it cannot have."""

from __future__ import annotations

BAD_REQUEST, NOT_FOUND, CONFLICT = 400, 404, 409


class RefusedError(Exception):
    """An answer that says no: `status` as HTTP has it, and a text that says what was expected and found.

    400: the question is none; 404: there is no such thing; 409: the thing is there and damaged.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text
