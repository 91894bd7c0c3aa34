"""A server's port: looked at and held before anything is loaded."""

import socket
from pathlib import Path

import pytest

from lavic.commands import web
from lavic.errors import UserError
from lavic.web.address import Address, held


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(UserError, match=f"port is {port}"):
        Address("127.0.0.1", port)


def test_a_host_of_another_machine() -> None:
    with pytest.raises(UserError, match="give another --port, or another --host"):
        Address("192.0.2.1", 0)


def test_a_port_is_held_until_it_is_released() -> None:
    with held("127.0.0.1", 0) as address:
        with pytest.raises(UserError, match=f"--port {address.port} cannot be listened on"):
            Address("127.0.0.1", address.port)
        address.release()
        Address("127.0.0.1", address.port).release()


def test_a_taken_port_is_found_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(web, "_chat", lambda options: pytest.fail("the model was loaded"))
    monkeypatch.setattr(web, "_shop", lambda argv: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for what in (["--chat_model", "any"], ["--config", "recommend"]):
            with pytest.raises(UserError, match=port):
                web.main([*what, "--port", port])
    assert "http" not in "".join(capsys.readouterr())
