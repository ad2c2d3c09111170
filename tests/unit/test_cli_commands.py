"""Commands through typer's runner, on a fake engine."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_fakes import FakeEngine
from typer.testing import CliRunner, Result

from webllm import __version__, cli
from webllm.artifacts.checksum import checksums
from webllm.artifacts.destination import RemoteVersion
from webllm.artifacts.files import FileSpec
from webllm.artifacts.manifest import Manifest
from webllm.artifacts.source import HubSource, RemoteSource, parse_source
from webllm.artifacts.store import DirectoryStore
from webllm.cli.main import app
from webllm.config import DEFAULT_MODEL_ID, prebuilt_app_config

SOURCE = str(Path(cli.__file__).parents[2])


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "webllm.engine.engine", SimpleNamespace(MLCEngine=FakeEngine))


def webllm(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def test_run_answers_on_stdout_and_counts_on_stderr() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "Hello there", "--device", "cpu")
    assert result.exit_code == 0
    assert result.stdout == "Message 1: Hello there \n"
    assert result.stderr == "7 prompt tokens at 310/s, 5 generated at 55.2/s on fake cpu\n"


def test_run_takes_a_system_message_and_standard_input() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "-", "--system", "Be brief.", stdin="Hello")
    assert result.stdout == "Message 2: Hello \n"


def test_run_raw_goes_on_with_the_text() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "Once", "--raw")
    assert result.stdout == "after Once\n"
    assert "(cut off at the limit)" in result.stderr


def test_an_answer_cannot_steer_the_terminal() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "a\x1b[31mb\x07c\x9b")
    assert result.stdout == "Message 1: a[31mbc \n"
    split = webllm("run", DEFAULT_MODEL_ID, "a\x1b [31mb \x9b 2J")  # pieces end within sequences
    assert split.stdout == "Message 1: a [31mb  2J \n"


EVIL = "\x1b[2J\x9b31m\r\x08\x7f\u202ecod\u2069[red]x[/red]:warning:"
SHOWN = r"\x1b[2J\x9b31m\x0d\x08\x7f\u202ecod\u2069[red]x[/red]:warning:"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\udc80-\udcff]")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", DEFAULT_MODEL_ID, f"refuse: {EVIL}"),  # a template's raise_exception
        ("run", DEFAULT_MODEL_ID, f"crash: {EVIL}"),  # a traceback
        ("chat", "--device", EVIL),
        ("pull", f"/absent{EVIL}.gguf"),
        ("bench", "--batch", EVIL),
        ("run", DEFAULT_MODEL_ID, "Hi", "--seed", EVIL),
        (EVIL,),
        ("run", f"--{EVIL}"),
        ("bundle", f"/dev/null/{EVIL}", "--no-model"),
    ],
)
def test_no_text_steers_the_terminal(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webllm.cli.bundle.site_folder", lambda: tmp_path)  # perhaps not built
    result = webllm(*arguments)
    assert not FORBIDDEN.search(result.output)
    assert not FORBIDDEN.search(result.stderr)
    assert "31m" in result.output


def test_escapes_are_shown_and_markup_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"{EVIL.replace('/', '')}.gguf"
    file.write_bytes(b"")
    assert webllm("pull", str(file)).stdout == f"{tmp_path}/{SHOWN.replace('/', '')}.gguf\n"
    _put(f"pypi:package/{EVIL}", tmp_path / "a")
    assert f"pypi:package/{SHOWN}" in webllm("models").stdout
    catalogue = {"model_list": [{"model_id": f"{EVIL}\nsecond", "model": "x/m.gguf"}]}
    (tmp_path / "models.json").write_text(json.dumps(catalogue))
    monkeypatch.setenv("WEBLLM_MODELS", str(tmp_path / "models.json"))
    assert f"{SHOWN}\\nsecond" in webllm("models").stdout
    assert SHOWN in webllm("run", "other", "Hi").stderr  # "known are …"
    (tmp_path / "models.json").write_text(EVIL)
    assert not FORBIDDEN.search(webllm("models").stderr)


def test_a_name_of_undecodable_bytes_is_shown() -> None:
    assert r"\x9b31m.gguf" in webllm("pull", "./\udc9b31m.gguf").stderr


def test_only_the_door_prints() -> None:
    """The command's other modules print through `webllm.cli.terminal`."""
    for file in Path(cli.__file__).parent.glob("*.py"):
        if file.name != "terminal.py":
            called = {
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Call)
            }
            printing = re.compile(r"print|.*\becho|.*\bsecho|.*Console|sys\.std(out|err)\.\w+")
            assert not [name for name in called if printing.fullmatch(name)], file.name


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "refuse: a\nwebllm: all is well\n")
    assert (result.exit_code, result.stderr) == (1, "webllm: a\\nwebllm: all is well\\n\n")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            "context_window_size is 0; give at least 1, or leave it out",
            "--context is 0; give at least 1, or leave it out",
        ),
        (
            "shorten the prompt, load the model with a larger context_window_size, or choose "
            'context_overflow "shift" or "truncate_oldest_messages"',
            "shorten the prompt or load the model with a larger --context",
        ),
        ("lower max_tokens; or use the CPU backend", "lower --max-tokens; or use --device cpu"),
        ("quantize has to be 'q4_0', not 'q5'", "--quantize has to be 'q4_0', not 'q5'"),
        ("my_top_p.gguf has no num_threads", "my_top_p.gguf has no --threads"),
    ],
)
def test_an_error_names_the_options_of_the_command(error: str, shown: str) -> None:
    assert webllm("run", DEFAULT_MODEL_ID, f"refuse: {error}").stderr == f"webllm: {shown}\n"


def test_a_bug_is_shown_as_a_traceback() -> None:
    result = webllm("run", DEFAULT_MODEL_ID, "crash: of mine")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: of mine" in result.stderr


def test_what_has_no_place_in_the_encoding_is_a_question_mark() -> None:
    command = [sys.executable, str(Path(__file__).with_name("cli_fakes.py")), "run"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": SOURCE}
    for prompt, said in [
        ("ä\x1b", b"Message 1: ? "),
        ("refuse: ä\x1b", rb"webllm: ?\x1b"),
        ("warn: \x1b", rb"\x1b"),  # a log
    ]:
        ended = subprocess.run(
            [*command, DEFAULT_MODEL_ID, prompt], capture_output=True, env=environment, timeout=60
        )
        assert said in ended.stdout + ended.stderr
        assert b"\x1b" not in ended.stdout + ended.stderr
    ended = subprocess.run([*command, "--\x1b"], capture_output=True, env=environment, timeout=60)
    assert (ended.returncode, b"\x1b" in ended.stderr) == (2, False)


def test_a_line_comes_at_once_through_a_pipe() -> None:
    program = "import sys; from webllm.cli.terminal import say; say('ready'); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": SOURCE},
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == b"ready"
        running.communicate()


def test_the_version_is_told_everywhere_alike() -> None:
    assert webllm("--version").stdout == f"webllm {__version__}\n"
    command = [sys.executable, "-m", "webllm", "--version"]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}
    )
    assert ended.stdout == f"webllm {__version__}\n"
    assert version("webllm") == __version__
    package = json.loads((Path(SOURCE).parent / "js" / "package.json").read_text())
    assert package["version"] == __version__


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "smollm", "Hi"), 1, "webllm: no model called 'smollm'"),
        (("run", DEFAULT_MODEL_ID, "Hi", "--temperature", "9"), 2, "--temperature"),
        (("run", DEFAULT_MODEL_ID, "too long"), 1, "webllm: the prompt has 9000 tokens"),
        (("run", DEFAULT_MODEL_ID), 2, "PROMPT"),
        (("run", DEFAULT_MODEL_ID, "Hi", "--raw", "--system", "x"), 2, "--raw"),
        (("run", DEFAULT_MODEL_ID, "Hi", "--top-p", "0"), 1, "above 0"),
        (("run", DEFAULT_MODEL_ID, "Hi", "--threads", "0"), 2, "--threads"),
        (("bench", "--batch", "1,x"), 2, "1,x"),
        (("bench", "--batch", "1,0"), 2, "1,0"),
        (("bench", "--batch", "9" * 5000), 2, "such as 1,4,16"),
        (("pull", "gopher:x"), 1, "unknown kind of model source"),
        (("pull", "./absent.gguf"), 1, "does not exist"),
        (("rm", DEFAULT_MODEL_ID), 1, "is not on this disk"),
        (("rm", "./model.gguf"), 2, "is your own file"),
        (("dance",), 2, "dance"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = webllm(*arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
    assert code == 2 or result.stderr.count("\n") == 1


def test_rm_waits_for_no_pull(tmp_path: Path) -> None:
    _put("hf:owner/repo/model.gguf", tmp_path / "b")
    source = parse_source("hf:owner/repo/model.gguf")
    assert isinstance(source, RemoteSource)
    with DirectoryStore().lock(source):
        refused = webllm("rm", "hf:owner/repo/model.gguf")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "is being downloaded; stop that, then delete it" in refused.stderr
        assert DirectoryStore().has(source)
    assert webllm("rm", "hf:owner/repo/model.gguf").exit_code == 0
    assert not DirectoryStore().has(source)


def test_a_path_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "q"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"")
    (folder / "weights").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert webllm("pull", "q").stdout == "q/model.gguf\n"
    monkeypatch.chdir(folder)
    assert webllm("pull", ".").stdout == "model.gguf\n"
    assert webllm("pull", "weights").stdout == "weights\n"
    unknown = webllm("pull", "r").stderr
    assert "no model called 'r', and no file or folder of that name here" in unknown


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", DEFAULT_MODEL_ID, "-"], 1, "webllm: standard input is not text"),
        (["run", DEFAULT_MODEL_ID, "\udcff"], 1, "webllm: PROMPT is not text"),
        (["chat", "--system", "\udcff"], 1, "webllm: --system is not text"),
        (["chat"], 0, "that line is not text"),
    ],
)
def test_input_that_is_no_text(arguments: list[str], code: int, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("cli_fakes.py")), *arguments],
        input=b"a\xff\nHello\n",
        capture_output=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "PYTHONUTF8": "1"},
        timeout=60,
    )
    assert ended.returncode == code
    assert said in ended.stderr.decode()
    assert code or b"Message 1: Hello" in ended.stdout  # the next line is answered


def test_models_says_what_is_on_disk_and_rm_deletes_it(tmp_path: Path) -> None:
    assert _row(DEFAULT_MODEL_ID) == [DEFAULT_MODEL_ID, "98", "MB", "no"]
    _put(prebuilt_app_config().find(DEFAULT_MODEL_ID).source, tmp_path / "a")
    _put("hf:owner/repo/model.gguf", tmp_path / "b")
    assert _row(DEFAULT_MODEL_ID)[-1] == "yes"
    assert _row("hf:owner/repo/model.gguf")[-1] == "yes"
    assert webllm("rm", DEFAULT_MODEL_ID).stdout.startswith(f"Deleted {DEFAULT_MODEL_ID}")
    assert _row(DEFAULT_MODEL_ID)[-1] == "no"


def _row(name: str) -> list[str]:
    lines = webllm("models").stdout.splitlines()
    return next(line for line in lines if line.startswith(name)).split()


def _put(name: str, file: Path) -> None:
    source = parse_source(name)
    assert isinstance(source, RemoteSource)
    file.write_text(name)
    sums = checksums(name.encode())
    DirectoryStore().put(source, file, f"{len(name):064x}", RemoteVersion(), sums)


def test_pull_prints_where_the_file_is(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"")
    assert webllm("pull", str(file)).stdout == f"{file}\n"


def test_bench_reports_rates_by_batch_size() -> None:
    result = webllm("bench", "--batch", "1,4", "--gen-tokens", "64", "--json")
    report = json.loads(result.stdout)
    assert [r["batch"] for r in report["results"]] == [1, 4]
    assert report["results"][1]["prefill_tps"] == 4 * 128 / 0.5
    assert report["results"][1]["decode_tps"] == 4 * 64 / 2.0
    assert report["device"] == "fake auto"
    assert report["load_s"] > 0
    assert report["peak_rss_bytes"] > 1e6
    table = webllm("bench").stdout.splitlines()
    assert table[0].split() == [
        "batch",
        "prompt",
        "generated",
        "prefill",
        "tok/s",
        "decode",
        "tok/s",
    ]
    assert table[1].split() == ["1", "128", "64", "256", "32.0"]


def test_bench_prints_the_batches_that_fit_and_the_error() -> None:
    result = webllm("bench", "--batch", "1,4,64,2")
    assert result.exit_code == 1
    assert [row.split()[0] for row in result.stdout.splitlines()] == ["batch", "1", "4"]
    assert result.stderr.endswith("\nwebllm: batch is 64; take a smaller batch or fewer tokens\n")
    result = webllm("bench", "--batch", "1,64", "--json")
    assert (result.exit_code, len(json.loads(result.stdout)["results"])) == (1, 1)
    result = webllm("bench", "-p", "6000")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_chat_reads_lines_to_the_end_of_its_input() -> None:
    lines = "Hello\n/stats\ntoo long\nagain\n/reset\nand now\n/nonsense\n/exit\nnever read\n"
    result = webllm("chat", stdin=lines)
    assert result.exit_code == 0
    assert result.stdout.split("\n\n") == [
        "Message 1: Hello ",
        "Message 3: again ",
        "Message 1: and now ",
        "",
    ]
    for said in (
        "prefill: 310.4",
        "holds 8192",
        "Started a new conversation",
        "no command /nonsense",
    ):
        assert said in result.stderr


def test_nothing_piped_holds_escape_codes() -> None:
    for arguments in (("models",), ("bench",), ("run", DEFAULT_MODEL_ID, "Hi"), ("--help",)):
        result = webllm(*arguments)
        assert result.exit_code == 0
        assert "\x1b" not in result.output


def test_a_model_of_several_files_is_one_model(tmp_path: Path) -> None:
    source = parse_source("hf:owner/split:Q8_0")
    assert isinstance(source, HubSource)
    names = [f"m-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]
    files = tuple(FileSpec(name, 9000) for name in names)
    manifest = Manifest(str(source), source.beside(""), names[0], files)
    store = DirectoryStore()
    store.put_manifest(source, manifest)
    for member in manifest.members:
        assert "hf:owner/split" not in webllm("models").stdout  # not whole
        file = tmp_path / member.file.name
        file.write_bytes(bytes(9000))
        sums = checksums(bytes(9000))
        store.put(member, file, hashlib.sha256(bytes(9000)).hexdigest(), RemoteVersion(), sums)
    rows = [line for line in webllm("models").stdout.splitlines() if "owner/split" in line]
    assert [row.split() for row in rows] == [["hf:owner/split:Q8_0", "18", "kB", "yes"]]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    pulled = webllm("pull", str(tmp_path / names[1])).stdout
    assert pulled.split() == [str(tmp_path / name) for name in names]
    assert webllm("rm", "hf:owner/split:Q8_0").exit_code == 0
    assert "owner/split" not in webllm("models").stdout
    assert not store.has(source)
