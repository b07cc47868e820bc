"""A line of text under a node, while a graph runs."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def say(node_id: str | None, text: str) -> None:
    """Show `text` under a node where there is a frontend to show it; without one, nothing happens."""
    try:
        from server import PromptServer

        if node_id is not None and getattr(PromptServer, "instance", None) is not None:
            PromptServer.instance.send_progress_text(text, str(node_id))
    except Exception as error:  # a line of text is no reason to stop a graph
        logger.debug("no text under node %s: %s", node_id, error)
