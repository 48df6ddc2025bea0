import json

import pytest

from paxray.anatomy.catalog import load_catalog
from paxray.anatomy.vocabulary import load_vocabulary, vocabulary_names
from paxray.errors import ConfigError

CATALOG = load_catalog()


def load(spec, base=None):
    return load_vocabulary(spec, base=base, catalog=CATALOG)


CHANNELS = ("paxray_166", "pax_ray_plus_plus_159")
OF_LABELS = [name for name in vocabulary_names() if name not in CHANNELS]


@pytest.mark.parametrize("name", OF_LABELS)
def test_built_in_vocabularies_name_canonical_classes(name):
    labels = load(name).labels
    # The effusions' task numbers from 2, since a class it no longer draws was 1.
    first = 2 if name == "totalsegmentator_pleural_pericard_effusion" else 1
    assert list(labels) == list(range(first, first + len(labels)))
    assert all(label in CATALOG for label in labels.values())
    assert len(set(labels.values())) == len(labels)


def test_every_sided_label_has_its_twin_in_the_same_task():
    """A mistyped list would most likely lose or double a side."""
    for name in OF_LABELS:
        classes = set(load(name).labels.values())
        if name != "phantom":  # which has the arch's left branches alone
            assert {CATALOG[c].mirror for c in classes if CATALOG[c].mirror} <= classes


@pytest.mark.parametrize("name", CHANNELS)
def test_a_label_map_cannot_have_channels(name):
    with pytest.raises(ConfigError, match="no label map can have them"):
        load(name)


def test_totalsegmentator_has_104_and_117_classes():
    assert len(load("totalsegmentator_v1").labels) == 104
    assert len(load("totalsegmentator_v2").labels) == 117


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "key"), [("totalsegmentator_v1", "total_v1"), ("totalsegmentator_v2", "total")]
)
def test_totalsegmentator_ids_are_the_published_ones(real_data, name, key):
    path = real_data.parent / "reference" / "totalsegmentator_class_map.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    published = {int(value): word for value, word in json.loads(path.read_text())[key].items()}
    assert load(name).labels == published


def test_inline_labels_add_and_override():
    vocabulary = load("totalsegmentator_v2+118:costal_cartilages+1:Left Lung")
    assert vocabulary.name == "totalsegmentator_v2+118:costal_cartilages+1:Left Lung"
    plain = load("totalsegmentator_v2").labels
    assert vocabulary.labels == plain | {118: "costal_cartilages", 1: "lung_left"}


def test_a_file_extends_relative_to_itself_and_the_base(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "ours.yaml").write_text(
        "{extends: totalsegmentator_v2, labels: {118: costal_cartilages}}"
    )
    (tmp_path / "deep" / "mine.yaml").write_text("extends: ours.yaml+119:lungs\nlabels:\n  1: body\n")
    labels = load("deep/mine.yaml+120:heart", base=tmp_path).labels
    plain = load("totalsegmentator_v2").labels
    assert labels == plain | {118: "costal_cartilages", 119: "lungs", 1: "body", 120: "heart"}
    assert list(labels) == sorted(labels)


def test_a_vocabulary_of_ones_own_needs_no_base(tmp_path):
    (tmp_path / "mine.yaml").write_text("labels: {3: lungs, 7: oesophagus}")
    assert load(str(tmp_path / "mine.yaml")).labels == {3: "lungs", 7: "esophagus"}


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("totalsegmentator_v3", "did you mean 'totalsegmentator_v"),
        ("totalsegmentator_v2+118:costal_cartilage_", "did you mean 'costal_cartilage"),
        ("totalsegmentator_v2+0:heart", "1 to 65535"),
        ("totalsegmentator_v2+65536:heart", "1 to 65535"),
        ("totalsegmentator_v2+x:heart", "no vocabulary"),
        ("totalsegmentator_v2+118", "no vocabulary"),
        ("", "no vocabulary"),
    ],
)
def test_bad_specifications_are_refused(spec, hint):
    with pytest.raises(ConfigError, match=hint):
        load(spec)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("labels:\n  1: lungs\n  2: hart\n", 3, "did you mean 'heart'"),
        ("labels:\n  one: lungs\n", 2, "1 to 65535"),
        ("labels:\n  0: lungs\n", 2, "1 to 65535"),
        ("labels:\n  1: 5\n", 2, "not a class name"),
        ("name: mine\n", 1, "not a mapping"),
        ("label: {1: lungs}\n", 1, "did you mean 'labels'"),
        ("labels: {1: lungs}\nextends: mine.yaml\n", 2, "extends itself"),
        ("labels: {1: lungs}\nextends: [a, b]\n", 2, "one vocabulary"),
        ("labels: {}\n", 1, "not a mapping"),
        ("classes: {heart: {status: absent}}\n", 1, "not a mapping"),
        ("labels: {1: lungs}\nnames: {a: heart}\nclasses: {lungs: {}}\n", 3, "paxray_classes.json"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, text, line, hint):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load("mine.yaml", base=tmp_path)
    assert f"mine.yaml:{line}" in caught.value.where
    assert hint in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load("nothing.yaml", base=tmp_path)
