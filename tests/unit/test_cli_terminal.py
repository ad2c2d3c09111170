"""The command on a real terminal (a pty), with a fake engine."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FAKES = Path(__file__).with_name("cli_fakes.py")
SOURCE = FAKES.parents[2] / "src"


class Terminal:
    """A program on a pty; its output is read until an expected text appears."""

    def __init__(self, *arguments: str) -> None:
        master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(SOURCE)}
        self.process = subprocess.Popen(
            [sys.executable, str(FAKES), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._master = master
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str, timeout_s: float = 20) -> str:
        """Reads until `pattern` appears; returns the output up to its end."""
        deadline = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += self._read()
        before, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return before

    def _read(self) -> str:
        try:
            return os.read(self._master, 4096).decode(errors="replace")
        except OSError:  # the program has ended
            return f"(ended with {self.process.wait(10)})"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


def _take_terminal() -> None:
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job inherits it ignored
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def chat() -> Iterator[Terminal]:
    terminal = Terminal("chat", "--device", "cpu")
    yield terminal
    terminal.close()


def test_chat_shows_progress_then_answers(chat: Terminal) -> None:
    chat.expect("Fetching model: .* of 100 MB.*100%")
    chat.expect("SmolLM2-135M-Instruct on fake cpu")
    chat.expect("> ")
    chat.send("Hello\n")
    chat.expect("Message 1: Hello ")
    chat.expect("> ")
    chat.send("/help\n")
    chat.expect("Ctrl-C stops an answer")
    chat.expect("> ")
    chat.send("\x04")
    chat.expect(r"ended with 0")


def test_progress_cannot_steer_the_terminal() -> None:
    terminal = Terminal("chat", "./\x1b]0;owned\x07.gguf")
    try:
        seen = terminal.expect("> ")
    finally:
        terminal.close()
    assert r"Fetching ./\x1b]0;owned\x07.gguf" in seen
    assert "\x1b]" not in seen
    assert "\x07" not in seen


def test_ctrl_c_stops_the_answer_and_not_the_program(chat: Terminal) -> None:
    chat.expect("> ")
    chat.send("forever\n")
    chat.expect(r"0 1 2 3 ")
    chat.send("\x03")
    assert "9999" not in chat.expect("> ")
    chat.send("half a line")
    chat.expect("half a line")
    time.sleep(0.2)  # readline waits for more: a signal before that is seen with the next key only
    chat.send("\x03")
    chat.expect("> ")
    chat.send("again\n")
    chat.expect("Message 3: again ")
    chat.expect("> ")
    chat.send("/exit\n")
    chat.expect("ended with 0")


def test_ctrl_c_ends_run_with_130() -> None:
    terminal = Terminal("run", "SmolLM2-135M-Instruct", "forever")
    try:
        terminal.expect("0 1 2 3 ")
        terminal.send("\x03")
        assert "Traceback" not in terminal.expect(r"ended with 130")
    finally:
        terminal.close()


CTRL_C_AT_IMPORT = """
import os, signal, sys

class PressCtrlC:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, PressCtrlC())
from webllm.cli import main
main()
"""


def test_ctrl_c_while_modules_load_is_quiet() -> None:
    command = [sys.executable, "-c", CTRL_C_AT_IMPORT]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (130, "")
