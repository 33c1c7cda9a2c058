import socket

import pytest

from mp_asgi.delivery.final_response import FinalResponse

FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="continue"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", id="hints"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 \r\n\r\n", id="two"),
    ],
)
def test_the_answer_is_the_one_behind_interim_ones(interim):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(interim + FINAL)
        response = FinalResponse(ours, method="POST")
        response.begin()

        assert (response.status, response.read()) == (200, b"{}")
        assert response.getheader("Link") is None
        response.close()
