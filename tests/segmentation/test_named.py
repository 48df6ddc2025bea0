"""Masks that bear names: vocabularies of names, several sources, folders; across formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segment_files import (
    plain_affine,
    segment_item,
    write_ct_series,
    write_rtstruct,
    write_seg,
    write_seg_nrrd,
)

from paxray import api
from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.labels import LabelVolume, Status
from paxray.anatomy.naming import load_names
from paxray.errors import CaseError, ConfigError
from paxray.inputs import Vocabularies
from paxray.io.cases import MaskSource, read_case_table
from paxray.io.identity import content_hash
from paxray.io.volume import Grid, Volume
from paxray.phantom.write import write_nifti

SHAPE = (5, 7, 6)
CATALOG = load_catalog()
CT = Volume(np.zeros(SHAPE, np.int16), plain_affine())


def mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE) < 0.4


def nrrd(path: Path, **masks: np.ndarray) -> Path:
    """Each mask a layer; ``__`` in a name stands for a blank."""
    segments = [
        {"Name": name.replace("__", " "), "LabelValue": "1", "Layer": str(n)} for n, name in enumerate(masks)
    ]
    return write_seg_nrrd(path, np.stack(list(masks.values())).astype(np.uint8), plain_affine(), segments)


def read(*sources: str | Path) -> LabelVolume:
    return api.read_masks(sources, CT)


def refused(*sources: str | Path) -> CaseError:
    with pytest.raises(CaseError) as caught:
        read(*sources)
    return caught.value


class TestVocabularyOfNames:
    def write(self, tmp_path: Path, text: str) -> Path:
        (tmp_path / "names.yaml").write_text(text)
        return tmp_path / "names.yaml"

    def test_names_lists_patterns_and_what_is_left_out(self, tmp_path):
        names = self.write(
            tmp_path,
            'names: {"Lung, left": lung_left, "Herz 1": [heart, pericardium], "PTV*": null, "PTV keep": liver}',
        )
        found = load_names(str(names), catalog=CATALOG)
        assert found is not None
        assert found.find("lung,  LEFT") == ("lung_left",)
        assert found.find("Herz-1") == ("heart", "pericardium")
        assert found.find("PTV_high[2]") == ()
        assert found.find("ptv keep") == ("liver",)
        assert found.find("CTV") is None

    def test_a_file_extends_another_and_goes_before_it(self, tmp_path):
        (tmp_path / "below.yaml").write_text('fraction: 0.25\nnames: {"A": liver, "B*": spleen}')
        self.write(tmp_path, 'extends: below.yaml\nnames: {"Bx": heart, "a": aorta}')
        found = load_names("names.yaml", base=tmp_path, catalog=CATALOG)
        assert found is not None
        assert [found.find(name) for name in ("A", "Bx", "By")] == [("aorta",), ("heart",), ("spleen",)]
        assert found.fraction == 0.25

    def test_a_vocabulary_of_values_has_no_names(self):
        assert load_names("totalsegmentator_v2", catalog=CATALOG) is None

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("names: [a]", "not a mapping"),
            ("names: {a: hart}", "did you mean 'heart'"),
            ("names: {a: 5}", "not a class"),
            ("names: {a b: heart, A-B: liver}", "stands twice"),
            ("names: {a: heart}\nfraction: 0", "above 0"),
            ("names: {a: heart}\nfraction: half", "above 0"),
            ("names: {a: heart}\nlabel: {}", "did you mean 'labels'"),
            ("names: {a: heart}\nextends: names.yaml", "extends itself"),
            (
                "names: {a: heart}\nclasses: {heart: {confidence: 0.5}}",
                "`classes` tells of the classes of label",
            ),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_its_line(self, tmp_path, text, hint):
        self.write(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            load_names("names.yaml", base=tmp_path, catalog=CATALOG)
        assert hint in str(caught.value)
        assert "names.yaml:" in caught.value.where

    def test_it_names_segments_unites_and_leaves_out(self, tmp_path):
        a, b = mask(1), mask(2)
        path = nrrd(tmp_path / "x.seg.nrrd", Lappen__1=a, Lappen__2=b, spleen=b, Tisch=a)
        names = self.write(tmp_path, 'names: {"Lappen*": [lung_left, lungs], Tisch: null}')
        labels = read(f"{path}={names}")
        assert set(labels.names) == {"lung_left", "lungs", "spleen"}
        np.testing.assert_array_equal(labels.mask("lung_left"), a | b)
        np.testing.assert_array_equal(labels.mask("lungs"), a | b)

    def test_it_names_the_files_of_a_folder_and_a_single_file(self, tmp_path):
        for name in ("Herz", "liver"):
            (tmp_path / "m").mkdir(exist_ok=True)
            write_nifti(tmp_path / "m" / f"{name}.nii.gz", Volume(mask(3).astype(np.uint8), CT.affine))
        names = self.write(tmp_path, "names: {Herz: heart}")
        assert set(read(f"{tmp_path / 'm'}={names}").names) == {"heart", "liver"}
        assert read(f"{tmp_path / 'm' / 'Herz.nii.gz'}={names}").names == ("heart",)
        assert refused(tmp_path / "m").code == "unknown_class"

    def test_values_do_not_name_what_bears_names(self, tmp_path):
        path = write_rtstruct(tmp_path / "rs.dcm", {"heart": []})
        assert refused(f"{path}=totalsegmentator_v2").code == "bad_vocabulary"

    def test_a_changed_name_and_a_changed_code_are_another_input(self, tmp_path):
        source = MaskSource(tmp_path / "x.dcm", "names.yaml", "x.dcm")
        self.write(tmp_path, "names: {a: heart}")
        before = Vocabularies(CATALOG, tmp_path).digest_of(source)
        self.write(tmp_path, "names: {a: liver}")
        after = Vocabularies(CATALOG, tmp_path).digest_of(source)
        assert before != after
        assert len(before) == len(after) == 64


class TestSeveralSources:
    def test_the_earlier_one_names_a_class_whatever_its_format(self, tmp_path):
        a, b, c, d = (mask(n) for n in range(4))
        seg = write_seg(
            tmp_path / "seg.dcm",
            [(1, k, a[k]) for k in range(5)] + [(2, k, b[k]) for k in range(5)],
            [segment_item(1, "heart"), segment_item(2, "liver")],
            plain_affine(),
        )
        layers = nrrd(tmp_path / "x.seg.nrrd", liver=c, spleen=d)
        square = Grid(SHAPE, CT.affine).to_world([[0.5, 0.5, 2], [3.5, 0.5, 2], [3.5, 4.5, 2], [0.5, 4.5, 2]])
        contours = write_rtstruct(tmp_path / "rs.dcm", {"spleen": [square], "aorta": [square]})
        values = write_nifti(
            tmp_path / "values.nii.gz", Volume(np.where(c, 1, 0).astype(np.uint8), CT.affine)
        )
        del values
        (tmp_path / "v.yaml").write_text("labels: {1: aorta, 2: heart}")
        by_value = f"{tmp_path / 'values.nii.gz'}={tmp_path / 'v.yaml'}"
        drawn = np.zeros(SHAPE, bool)
        drawn[2, 1:5, 1:4] = True
        forward = read(seg, layers, contours, by_value)
        for name, truth in {"heart": a, "liver": b, "spleen": d, "aorta": drawn}.items():
            np.testing.assert_array_equal(forward.mask(name), truth)
        backward = read(by_value, contours, layers, seg)
        for name, truth in {"aorta": c, "spleen": drawn, "liver": c}.items():
            np.testing.assert_array_equal(backward.mask(name), truth)
        # The label map says that there is no heart, and it came first.
        assert backward.status["heart"] is Status.ABSENT

    def test_a_case_table_names_them_without_a_vocabulary(self, tmp_path):
        write_rtstruct(tmp_path / "rs.dcm", {"heart": []})
        (tmp_path / "plain").write_bytes((tmp_path / "rs.dcm").read_bytes())
        (tmp_path / "cases.csv").write_text(
            "case_id,ct,masks,vocabulary\n"
            "a,ct,rs.dcm,\nb,ct,x.seg.nrrd,\nc,ct,plain,\nd,ct,x.seg.nrrd=n.yaml;rs.dcm=by_name,\n"
        )
        found = [
            [source.vocabulary for source in case.masks] for case in read_case_table(tmp_path / "cases.csv")
        ]
        assert found == [["by_name"], ["by_name"], ["by_name"], ["n.yaml", "by_name"]]


class TestFolders:
    def test_the_segmentations_of_a_dicom_folder_are_one_source(self, tmp_path):
        """The CT's slices beside them are passed over."""
        write_ct_series(tmp_path / "study", SHAPE, plain_affine())
        frames = [(1, k, mask(1)[k]) for k in range(5)]
        write_seg(tmp_path / "study" / "a.dcm", frames, [segment_item(1, "heart")], plain_affine())
        write_rtstruct(tmp_path / "study" / "b", {"liver": []})
        ct = api.read_ct(tmp_path / "study")
        labels = api.read_masks(tmp_path / "study", ct)
        assert labels.status == {"heart": Status.PRESENT, "liver": Status.ABSENT}
        np.testing.assert_array_equal(labels.mask("heart"), mask(1))

    def test_two_files_with_one_class_and_two_kinds_of_files_are_refused(self, tmp_path):
        for name in ("a", "b"):
            write_rtstruct(tmp_path / f"{name}.dcm", {"heart": []})
        assert refused(tmp_path).code == "bad_labels"
        (tmp_path / "b.dcm").unlink()
        write_nifti(tmp_path / "liver.nii.gz", Volume(mask(0).astype(np.uint8), CT.affine))
        assert refused(tmp_path).code == "bad_labels"

    def test_a_folder_of_a_ct_alone_has_no_masks(self, tmp_path):
        write_ct_series(tmp_path / "ct", SHAPE, plain_affine())
        assert refused(tmp_path / "ct").code == "no_masks"


def test_identity_is_content(tmp_path):
    one = nrrd(tmp_path / "a.seg.nrrd", heart=mask(1))
    other = nrrd(tmp_path / "b.seg.nrrd", heart=mask(2))
    assert content_hash(one) != content_hash(other)
    renamed = tmp_path / "c.seg.nrrd"
    renamed.write_bytes(one.read_bytes())
    assert content_hash(one) == content_hash(renamed)
