"""The case table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxray.errors import ConfigError
from paxray.io.cases import Case, MaskSource, read_case_table, write_case_table


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_case_table(path)
    return str(caught.value)


def test_the_two_required_columns_are_enough(tmp_path):
    (case,) = read_case_table(table(tmp_path, "case_id,ct\na,x/ct.nii.gz\n"))
    assert case == Case("a", "a", tmp_path / "x/ct.nii.gz", "x/ct.nii.gz", patient_assumed=True)


def test_all_columns_and_others(tmp_path):
    text = (
        "\ufeffct,case_id,patient_id,masks,vocabulary,source,license,posture\r\n"
        '"a, b.nii",c1,p1,seg.nii.gz,totalsegmentator_v2,"LIDC, 2011",CC BY 3.0,supine\r\n'
        "\r\n"
        "d,c2,,m/seg=by_name; user=v/1=mine ,,,,\r\n"
    )
    one, two = read_case_table(table(tmp_path, text))
    assert one.ct_where == "a, b.nii"
    assert one.masks == (MaskSource(tmp_path / "seg.nii.gz", "totalsegmentator_v2", "seg.nii.gz"),)
    assert (one.source, one.license, one.extra) == ("LIDC, 2011", "CC BY 3.0", {"posture": "supine"})
    assert two.patient_id == "c2"
    assert two.masks == (
        MaskSource(tmp_path / "m/seg", "by_name", "m/seg"),
        MaskSource(tmp_path / "user=v/1", "mine", "user=v/1"),
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["cases.csv", "empty"]),
        ("case_id,masks\na,b\n", ["cases.csv:1", "column ct"]),
        ("case,ct\na,b\n", ["cases.csv:1", "column case_id", "rename the column 'case' to 'case_id'"]),
        ("case_id,ct,ct\na,b,c\n", ["cases.csv:1", "column 3"]),
        ("case_id,ct\na,b\n\n,c\n", ["cases.csv:4", "column case_id", "empty"]),
        ("case_id,ct\na,\n", ["cases.csv:2", "column ct", "empty"]),
        ("case_id,ct\na,b,c\n", ["cases.csv:2", "2 cells"]),
        ("case_id,ct\na,b\nb,b\na,c\n", ["cases.csv:4", "column case_id", "line 2"]),
        ("case_id,ct\na/b,c\n", ["cases.csv:2", "column case_id", "'a/b'"]),
        ("case_id,ct\n..,c\n", ["cases.csv:2", "column case_id"]),
        ("case_id,ct\ncafé,c\n", ["cases.csv:2", "column case_id"]),
        ("case_id,ct,masks\na,b,c\n", ["cases.csv:2", "column masks"]),
        ("case_id,ct,masks,vocabulary\na,b,,v\n", ["cases.csv:2", "column masks"]),
        ("case_id,ct,masks,vocabulary\na,b,c;d,v\n", ["cases.csv:2", "column masks"]),
        ("case_id,ct,masks,vocabulary\na,b,c=w,v\n", ["cases.csv:2", "column vocabulary"]),
        ("case_id,ct,masks\na,b,c=w;\n", ["cases.csv:2", "column masks"]),
        ("case_id,ct,masks\na,b,=w\n", ["cases.csv:2", "column masks"]),
        ('case_id,ct\n"a\nb",c\n', ["cases.csv:2", "column case_id"]),
        ('case_id,ct\na,"b\n', ["cases.csv:2", "CSV"]),
        ("case_id;ct\na;b\n", ["separate cells by commas", "';'"]),
        ("case_id\tct\na\tb\n", ["separate cells by commas", "tabs"]),
        ("case_id,ct,mask\na,b,c\n", ["there is no column 'mask'", "'masks'"]),
        ("case_id,ct\na,b\nA,c\n", ["cases.csv:3", "upper and lower"]),
    ],
)
def test_errors_name_file_line_and_column(tmp_path, text, parts):
    message = refused(table(tmp_path, text))
    for part in parts:
        assert part in message


def test_no_table_and_not_text(tmp_path):
    assert "none.csv" in refused(tmp_path / "none.csv")
    (tmp_path / "cases.csv").write_bytes(b"case_id,ct\n\xff\xfe,b\n")
    assert "UTF-8" in refused(tmp_path / "cases.csv")


def test_files_that_do_not_exist_are_no_error_here(tmp_path):
    (case,) = read_case_table(table(tmp_path, "case_id,ct,masks\na,nowhere.nii,gone=v\n"))
    assert not case.ct.exists()


paths = st.lists(
    st.text("abcXYZ019 _=,\"'é.-", min_size=1).filter(lambda t: t.strip(" ") == t and t.strip(".")),
    min_size=1,
    max_size=3,
).map("/".join)
cells = st.text("abc ,;\"'=é\t", max_size=8).map(str.strip)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(paths, st.lists(st.tuples(paths, st.sampled_from(["by_name", "v2"])), max_size=3), cells),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("t")
    cases = [
        Case(
            f"case.{n}",
            f"p{n % 2}",
            folder / ct,
            ct,
            tuple(MaskSource(folder / path, word, path) for path, word in masks),
            source=text,
            extra={"note": text},
        )
        for n, (ct, masks, text) in enumerate(rows)
    ]
    write_case_table(folder / "cases.csv", cases)
    assert read_case_table(folder / "cases.csv") == cases
    assert [file.name for file in folder.iterdir()] == ["cases.csv"]


def test_paths_are_written_relative_to_the_table(tmp_path):
    (tmp_path / "tables").mkdir()
    write_case_table(tmp_path / "tables/cases.csv", [Case("a", "a", tmp_path / "data/ct.nii", "ct.nii")])
    (case,) = read_case_table(tmp_path / "tables/cases.csv")
    assert case.ct_where == "../data/ct.nii"
    assert case.ct.resolve() == (tmp_path / "data/ct.nii").resolve()


@pytest.mark.parametrize(
    "case",
    [
        Case("a b", "p", Path("x"), "x"),
        Case("a", "p", Path("x;y"), "x;y"),
        Case("a", "p", Path("x"), "x", extra={"ct": "y"}),
        Case("a", "p", Path("x"), "x", (MaskSource(Path("m"), "", "m"),)),
    ],
)
def test_what_a_table_cannot_say_is_refused_and_the_old_table_stays(tmp_path, case):
    path = table(tmp_path, "case_id,ct\na,b\n")
    with pytest.raises(ConfigError):
        write_case_table(path, [case])
    assert path.read_text() == "case_id,ct\na,b\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_case_id_twice_is_not_written(tmp_path):
    case = Case("a", "a", tmp_path / "x", "x")
    with pytest.raises(ConfigError, match="twice"):
        write_case_table(tmp_path / "cases.csv", [case, case])
    assert not (tmp_path / "cases.csv").exists()
