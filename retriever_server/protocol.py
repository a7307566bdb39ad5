"""Uvicorn's HTTP protocol, with an end to what a client may take over a request and its answer."""

from asyncio import Protocol, TimerHandle, Transport

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_MAX_HEAD_BYTES = 1 << 16


def patient_protocol(timeout_s: float) -> type[Protocol]:
    """The protocol class uvicorn would take, but one that closes connections whose head takes over ``timeout_s``.

    Uvicorn times only the silence between requests, and its faster parser reads heads of any length.
    """

    class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _head_timer: TimerHandle | None = None
        _num_head_bytes = 0

        def connection_made(self, transport: Transport) -> None:
            super().connection_made(transport)
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._stop_timer()
                return
            if self._head_timer is None:
                self._start_timer()
            self._num_head_bytes += len(data)
            if self._num_head_bytes > _MAX_HEAD_BYTES:
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def timeout_keep_alive_handler(self) -> None:
            # Closing waits for a client that does not read its answer.
            self.transport.abort()

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start_timer(self) -> None:
            self._head_timer = self.loop.call_later(timeout_s, self.transport.abort)

        def _stop_timer(self) -> None:
            self._num_head_bytes = 0
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return PatientProtocol
