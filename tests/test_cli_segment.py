"""What `paxray segment` refuses before it reads anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from paxray.cli import app


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (["--labels", "masks"], "--labels is for the segmenter `files`", "--segmenter files"),
        (
            ["--labels", "masks", "--segmenter", "thorax"],
            "'thorax' looks at the CT alone",
            "--segmenter files",
        ),
        (["--segmenter", "thorax", "--segmenter", "nnunet"], "more than once", "pipeline"),
        (["--segmenter", "files"], "none are given", "--labels MASKS"),
    ],
)
def test_what_would_be_left_out_silently_is_refused(
    tmp_path: Path, arguments: list[str], what: str, do: str
) -> None:
    told = CliRunner().invoke(
        app, ["segment", str(tmp_path / "ct"), "--out", str(tmp_path / "x"), *arguments]
    )
    assert told.exit_code == 2, told.output
    assert what in told.output
    assert do in told.output
    assert not (tmp_path / "x").exists()
