"""Who takes HTTP apart? httptools (llhttp, Node's parser) through uvicorn, with a bound on the head.

Measured at eight streams of the embedded model: h11, which uvicorn would take otherwise, costs about a third
of what the event loop spends. But h11 refuses a head of more than 64 KiB, and llhttp reads on for as long
as somebody sends; so the bound is set here.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 16  # beyond the segment of the network in which the head began


class BoundedHead(HttpToolsProtocol):
    """Closes a connection (400) whose request line and headers do not come to an end."""

    _in_head = False  # of a request that is being read
    _began_here = False  # in the segment that is being read
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._began_here = False
        super().data_received(data)
        # A segment is all head if the head was open before it and still is.
        if self._in_head and not self._began_here:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._in_head = False
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._in_head, self._began_here, self._head_bytes = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
