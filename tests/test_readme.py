"""The README's commands and code, run as they stand there on CTs that look like a user's."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import load_vocabulary
from paxray.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, phantom_table: Path) -> Path:
    """A folder with `my_cts/a ... c`, labelled as TotalSegmentator v2 would, and the pipelines beside."""
    root = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT / "pipelines", root / "pipelines")
    catalog = load_catalog()
    ours, theirs = (load_vocabulary(n, catalog=catalog).labels for n in ("phantom", "totalsegmentator_v2"))
    number = {name: value for value, name in theirs.items()}
    table = np.zeros(256, np.uint8)
    for value, name in ours.items():
        # What the other vocabulary has no name for goes to its heart, or nowhere.
        table[value] = number.get("heart" if name.startswith("heart") else name, 0)
    for name, phantom in zip("abc", sorted(phantom_table.parent.glob("phantom-*")), strict=False):
        folder = root / "my_cts" / name
        folder.mkdir(parents=True)
        shutil.copyfile(phantom / "ct.nii.gz", folder / "ct.nii.gz")
        labels = nib.load(phantom / "labels.nii.gz")
        nib.save(nib.Nifti1Image(table[np.asarray(labels.dataobj)], labels.affine), folder / "masks.nii.gz")
    return root


def test_the_readme(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shell and Python block, in order; `make` lines are what CI itself runs."""
    monkeypatch.chdir(workplace)
    ran = 0
    for language, block in BLOCKS:
        if language == "yaml":
            name = re.match(r"# (\S+)\n", block)
            assert name is not None, "a YAML block begins with its file name"
            (workplace / name[1]).write_text(block)
        elif language == "python":
            exec(compile(block, "README.md", "exec"), {})
            ran += 1
        elif language == "sh":
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["paxray"]:
                    result = CliRunner().invoke(app, words[1:])
                    assert result.exit_code == 0, f"{line}\n{result.output}"
                    ran += 1
                else:
                    assert words[0] == "make", line
                    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert language == "csv", language
    assert ran >= 10
    assert (workplace / "with_mine" / "dataset.json").exists()


def test_the_csv_block_is_a_case_table(tmp_path: Path) -> None:
    from paxray.io.cases import read_case_table

    (block,) = [text for language, text in BLOCKS if language == "csv"]
    (tmp_path / "cases.csv").write_text(block)
    assert [case.case_id for case in read_case_table(tmp_path / "cases.csv")] == ["a-1", "b-1"]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_point_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{page} links to {target}"
