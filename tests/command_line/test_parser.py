"""The parser that the programs share."""

import pytest

from rann_jax.command_line.parser import Parser

pytestmark = pytest.mark.fast


@pytest.fixture
def parser():
    made = Parser("rann_jax.command_line.program", "What it does:\n\n  as it stands")
    made.add_argument("files", nargs="*")
    made.add_argument("--dry-run", action="store_true")
    made.add_argument("--batch-size", type=int)
    made.add_argument("--beam")
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dry-run", "--batch-size", "4", "my_clip.wav"],
        ["--dry_run", "--batch_size", "4", "my_clip.wav"],
        ["--dry_run", "--batch_size=4", "my_clip.wav"],
        ["--dry_run", "--batch_size=4 ", "my_clip.wav"],  # a value may have spaces
    ],
)
def test_options_are_understood_with_dashes_and_with_underscores(parser, arguments):
    options = parser.parse_args(arguments)
    assert options.dry_run
    assert options.batch_size == 4
    assert options.files == ["my_clip.wav"]


@pytest.mark.parametrize("value", ["a_b", "--number_of_workers=2 --job_name=a_b"])
def test_values_stay_as_they_are(parser, value):
    assert parser.parse_args(["--beam", value]).beam == value
    assert parser.parse_args([f"--beam={value}"]).beam == value


def test_flags_of_a_config_are_passed_on_as_they_are(parser):
    flags = ["--config.data_dir=my_clips", "--config.eval.batch_size=2"]
    options, rest = parser.parse_known_args(["--dry_run", *flags])
    assert options.dry_run
    assert rest == flags


def test_the_command_line_of_the_process_is_the_default(parser, monkeypatch):
    monkeypatch.setattr("sys.argv", ["program", "--batch_size", "3"])
    assert parser.parse_args().batch_size == 3


def test_options_cannot_be_abbreviated(parser, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--dry"])
    assert "unrecognized arguments: --dry" in capsys.readouterr().err


def test_help_shows_the_command_and_the_description_as_it_stands(parser):
    told = parser.format_help()
    assert told.startswith("usage: python -m rann_jax.command_line.program [-h]")
    assert "What it does:\n\n  as it stands" in told
