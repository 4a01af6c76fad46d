"""The shell around every verb: exit codes, the error block, one JSON object, help."""

import errno
import io
import json
import math

import numpy as np
import pytest
import typer
from typer.main import get_command

from bitfold import errors
from bitfold.cli import main
from bitfold.cli.app import VERBS
from bitfold.cli.inputs import open_array, parse_shape, require_file, require_folder_of
from bitfold.cli.shell import (
    Shell,
    Verb,
    error_block,
    guarded,
    json_text,
    one_of,
    parse_pair,
    settle,
    write_json,
)


def call(function, *arguments):
    """Exit code of a one-verb program."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(Verb("probe", function, ()).command())
    return get_command(app).main(list(arguments), prog_name="probe", standalone_mode=False)


def raises(error):
    def verb(shell: Shell) -> None:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("a", where="b", todo="c"), 2),
        (errors.InputError("a"), 2),
        (errors.OutputError("a"), 2),
        (errors.MissingDependencyError("a"), 2),
        (errors.UnsupportedError("a"), 3),
        (errors.OffGridError("a"), 3),
        (errors.MismatchError("a"), 1),
        (ValueError("unforeseen"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 2),
        (MemoryError(), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_every_ending_has_its_exit_code_and_no_traceback(error, code, capsys):
    assert call(raises(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_the_error_block_has_three_parts():
    error = errors.InputError("it is cut short", where="file a.pt", todo="write it again")
    assert error_block(error, verb="export") == (
        "bitfold export: error: it is cut short\n  where: file a.pt\n  do:    write it again"
    )


def test_what_a_file_calls_its_parts_neither_moves_the_terminal_nor_fills_it():
    shown = error_block(errors.InputError("a\x1b[31mb\udc80 ≤ c\nd"), verb="export")
    assert shown == "bitfold export: error: a\\x1b[31mb\\udc80 ≤ c\nd"
    long = error_block(errors.InputError("x" * 5000), verb="export")
    assert long.endswith("x… and 4000 characters more")


def test_an_interruption_is_one_line(capsys):
    assert call(raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "bitfold probe: interrupted\n"


def test_an_unforeseen_error_is_called_a_bug_and_says_how_to_get_the_traceback(capsys):
    call(raises(ValueError("unforeseen")))
    shown = capsys.readouterr().err
    assert shown.startswith("bitfold probe: error: a bug in bitfold: ValueError: unforeseen")
    assert "BITFOLD_DEBUG=1" in shown


def test_debugging_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("BITFOLD_DEBUG", "1")
    assert call(raises(errors.InputError("broken"))) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "bitfold probe: error: broken" in shown


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("torch", "pip install 'bitfold[export]'"),
        ("onnxruntime", "pip install 'bitfold[bench]'"),
        ("PIL", "pip install 'bitfold[export]'"),
        ("onnx", "pip install 'bitfold'"),
    ],
)
def test_a_missing_package_names_what_to_install(module, remedy, capsys):
    error = ModuleNotFoundError(f"No module named '{module}.nn'", name=f"{module}.nn")
    assert call(raises(error)) == 2
    shown = capsys.readouterr().err
    assert f"the package '{module}' is not installed" in shown
    assert remedy in shown


def test_a_full_disk_is_named(capsys):
    assert call(raises(OSError(errno.ENOSPC, "No space left on device", "out.npz"))) == 2
    shown = capsys.readouterr().err
    assert "writing failed: No space left on device" in shown
    assert "where: file out.npz" in shown


def test_a_closed_pipe_says_nothing(capsys):
    assert call(raises(BrokenPipeError())) == 141
    assert capsys.readouterr().err == ""


def test_json_mode_keeps_stray_prints_off_stdout(capsys):
    def verb(shell: Shell) -> None:
        print("a library talks")  # noqa: T201  # what is under test
        shell.emit({"answer": 42}, lambda: ["never shown"])

    assert call(verb, "--json") == 0
    captured = capsys.readouterr()
    assert captured.out == '{"schema": "bitfold/probe/1", "answer": 42}\n'
    assert captured.err == "a library talks\n"


def test_quiet_prints_nothing(capsys):
    def verb(shell: Shell) -> None:
        shell.note("a note")
        shell.emit({"answer": 42}, lambda: ["a table"])

    assert call(verb, "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_a_result_without_a_terminal_has_no_colour(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    def verb(shell: Shell) -> None:
        shell.emit({}, lambda: ["[bold]plain[/bold] 12"])

    assert call(verb) == 0
    assert capsys.readouterr().out == "[bold]plain[/bold] 12\n"


def test_progress_is_invisible_without_a_terminal(capsys):
    def verb(shell: Shell) -> None:
        assert not shell.interactive
        with shell.progress() as bar:
            bar.update(bar.add_task("work", total=2), completed=1)

    assert call(verb) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_logs_to_stderr(capsys):
    def verb(shell: Shell) -> None:
        shell.log.debug("a detail")

    assert call(verb) == 0
    assert capsys.readouterr().err == ""
    assert call(verb, "-v") == 0
    assert capsys.readouterr() == ("", "DEBUG bitfold.cli.probe: a detail\n")


def test_the_seed_reaches_the_verb():
    seen = []

    def verb(shell: Shell) -> None:
        seen.append(shell.seed)

    assert call(verb, "--seed", "7") == 0
    assert seen == [7]


def test_json_is_strict():
    fields = {"nan": math.nan, "inf": math.inf, "array": np.arange(3), "one": np.float32(0.5)}
    assert json.loads(json_text(fields)) == {
        "nan": None,
        "inf": None,
        "array": [0, 1, 2],
        "one": 0.5,
    }


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError, match="object has no JSON form"):
        json_text({"thing": object()})


def test_a_json_file_in_a_folder_that_is_not_there_raises_output_error(tmp_path):
    with pytest.raises(errors.OutputError):
        write_json(tmp_path / "nowhere" / "a.json", {"a": 1})


def test_settle_survives_a_stream_that_cannot_be_flushed():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    settle(Full())


def test_guarded_gives_the_code_of_typer_exit():
    def leave():
        raise typer.Exit(5)

    assert guarded(leave, verb="probe") == 5


def test_pairs_are_parsed_or_refused():
    assert parse_pair("4,2", option="--bits") == (4, 2)
    assert parse_pair("16x32", option="--array", separator="x") == (16, 32)
    for text in ("4", "4,", "a,b", "-1,2", "1,2,3"):
        with pytest.raises(errors.UsageError, match="--bits needs two numbers as in 4,4"):
            parse_pair(text, option="--bits")


def test_shapes_are_parsed_or_refused():
    assert parse_shape("224x224x3") == (224, 224, 3)
    for text in ("28x28", "0x28x1", "28x28xA"):
        with pytest.raises(errors.UsageError, match="HxWxC"):
            parse_shape(text)


def test_an_unknown_choice_names_the_known_ones():
    with pytest.raises(errors.UsageError, match="choose from: auto, c"):
        one_of("gpu", ("auto", "c"), option="--backend")


def test_a_missing_an_empty_and_a_folder_input_are_told_apart(tmp_path):
    (tmp_path / "empty").touch()
    for name, message in (("none", "does not exist"), ("empty", "is empty"), (".", "is a folder")):
        with pytest.raises(errors.InputError, match=message):
            require_file(tmp_path / name, kind="model")


def test_an_output_that_cannot_be_a_file_is_refused_before_any_work(tmp_path):
    require_folder_of(tmp_path / "new.npz")
    cases = (
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "x", "there is no folder"),
        (type(tmp_path)("/dev/null"), "it is a device"),
    )
    for path, message in cases:
        with pytest.raises(errors.OutputError, match=message):
            require_folder_of(path)


def test_images_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "float.npy", np.zeros((1, 2, 2, 1)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    for name, message in (
        ("float", r"got float64 \(1, 2, 2, 1\)"),
        ("objects", "not an .npy file of images"),
        ("text", "not an .npy file of images"),
    ):
        with pytest.raises(errors.InputError, match=message):
            open_array(tmp_path / f"{name}.npy")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_the_common_options_and_an_example(verb, capsys):
    assert main([verb.name, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--json", "--quiet", "--verbose", "--seed", "--help"):
        assert option in shown
    assert verb.examples
    for example in verb.examples:
        assert example.startswith(f"bitfold {verb.name}")
        assert f"  {example}\n" in shown


def test_the_overview_names_every_verb_in_full_sentences(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb.name} " in shown
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["run"], "Missing argument 'MODEL'"),
        (["run", "x.onnx", "--nonsense"], "No such option"),
        (["new", "--bits", "2,2", "-o", "x.pt"], "Missing option '--net'"),
        (["bench", "x.onnx", "--threads", "0"], "'--threads'"),
        (["bench", "x.onnx", "--rounds", "many"], "'--rounds'"),
    ],
)
def test_a_wrong_command_line_is_one_block_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "--help" in captured.err
    assert len(captured.err.splitlines()) <= 4


def test_no_verb_at_all_shows_the_overview_on_stderr(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands:" in captured.err


def test_the_version_is_one_line(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bitfold ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["new", "--net", "resnet8", "--bits", "2", "-o", "x.pt"], 2, "two numbers"),
        (["new", "--net", "resnet8", "-o", "x.pt"], 2, "Give --bits"),
        (["new", "--net", "mlp", "--method", "sttn", "-o", "x.pt"], 2, "mlp has no form for sttn"),
        (
            ["new", "--net", "resnet8", "--bits", "2,2", "--method", "q", "-o", "x.pt"],
            2,
            "pact-sawb",
        ),
        (["export", "x.pt", "-o", "y.onnx", "--profile", "xml"], 2, "--profile 'xml'"),
        (["export", "x.pt", "-o", "y.onnx"], 2, "does not exist"),
        (["run", "x.onnx", "-o", "y.npz"], 2, "exactly one of --data and --input"),
        (["run", "x.onnx", "--data", "embedded", "-o", "y", "--backend", "gpu"], 2, "oracle"),
        (["run", "x.onnx", "--data", "embedded", "-o", "no/y.npz"], 2, "there is no folder no"),
        (["inspect", "x.onnx"], 2, "does not exist"),
        (["verify", "x.onnx"], 2, "--data embedded"),
        (["bench", "x.onnx", "--against", "abacus"], 2, "choose from"),
        (["bench", "x.onnx", "--fail-under", "1"], 2, "--against onnxruntime"),
        (["simulate", "x.onnx", "--array", "16"], 2, "two numbers"),
        (["simulate", "x.onnx", "--config", "none.toml"], 2, "does not exist"),
        (["emit", "vhdl", "x.onnx", "-o", "array"], 2, "choose from: rtl"),
        (["emit", "rtl", "x.onnx", "-o", "no/array"], 2, "there is no folder no"),
        (["emit", "rtl", "x.onnx", "-o", "array", "--check", "vcs"], 2, "verilator, iverilog"),
        (["emit", "rtl", "x.onnx", "-o", "array"], 2, "does not exist"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_can(
    words, code, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []
