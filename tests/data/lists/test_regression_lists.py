"""Lists of videos with numbers: every form, what is refused, how they are divided and scaled."""

import json
from pathlib import Path

import numpy as np
import pytest

from video_mvit.data.lists.regression_lists import RegressionSource
from video_mvit.data.lists.regression_manifest import (
    RegressionManifest,
    find_values,
    standardization_of,
)
from video_mvit.errors import UserError

ONE = {"a.mp4": (3.5,), "my b.mp4": (-20.0,), "c/d.mp4": (0.25,)}
TWO = {"a.mp4": (3.5, 1.0), "my b.mp4": (-20.0, 2.0), "c/d.mp4": (0.25, 3e-3)}
FORMS_OF_ONE = {
    "rows.csv": "a.mp4,3.5\nmy b.mp4,-2e1\nc/d.mp4,.25\n",
    "rows.tsv": "a.mp4\t3.5\nmy b.mp4\t-20\nc/d.mp4\t+0.25\n",
    "rows.txt": "a.mp4 3.5\nmy b.mp4 -20\nc/d.mp4 0.25\n",
    "parts.csv": "a.mp4;3.5\nmy b.mp4;-20\nc/d.mp4;0.25\n",
    "object.json": json.dumps({name: value for name, (value,) in ONE.items()}),
    "lists.json": json.dumps({name: list(values) for name, values in ONE.items()}),
}
FORMS_OF_TWO = {
    "header.csv": "path,angle,speed\na.mp4,3.5,1\nmy b.mp4,-20,2\nc/d.mp4,0.25,0.003\n",
    "other.csv": "speed,who,angle,file\n1,x,3.5,a.mp4\n2,y,-20,my b.mp4\n3e-3,,0.25,c/d.mp4\n",
    "object.json": json.dumps(
        {name: {"speed": speed, "angle": angle} for name, (angle, speed) in TWO.items()}
    ),
    "entries.json": json.dumps(
        [{"path": name, "angle": angle, "speed": speed} for name, (angle, speed) in TWO.items()]
    ),
    "rows.csv": "a.mp4,3.5,1\nmy b.mp4,-20,2\nc/d.mp4,0.25,0.003\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ONE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def source(root: Path, name: str, **options: object) -> RegressionSource:
    known = {"other_manifest": str(root / name), "folder": str(root), **options}
    return RegressionSource(part="train", manifest=str(root / name), **known)


def values_in(manifest: RegressionManifest) -> dict[str, tuple[float, ...]]:
    return {n: tuple(v) for n, v in zip(manifest.names, manifest.values.tolist(), strict=True)}


@pytest.mark.parametrize("form", FORMS_OF_ONE)
def test_every_form_of_one_number_gives_the_same(root: Path, form: str) -> None:
    (root / form).write_text(FORMS_OF_ONE[form])
    found = source(root, form).read()
    assert values_in(found) == ONE
    assert found.class_names == ("value",)
    assert found.target(1).tolist() == [-20.0]
    assert "3 videos, value -20 to 3.5 (mean -5.417, standard deviation 10.4" in found.summary()


@pytest.mark.parametrize("form", FORMS_OF_TWO)
def test_targets_choose_and_order_columns_in_every_form(root: Path, form: str) -> None:
    (root / form).write_text(FORMS_OF_TWO[form])
    found = source(root, form, targets=["angle", "speed"]).read()
    assert values_in(found) == TWO
    assert found.class_names == ("angle", "speed")
    if form != "rows.csv":
        only = source(root, form, targets=["speed"]).read()
        assert values_in(only) == {name: row[1:] for name, row in TWO.items()}


def test_another_list_has_the_targets_of_the_model_in_its_order(root: Path) -> None:
    (root / "list.csv").write_text("path,speed,angle\na.mp4,1,3.5\n")
    assert values_in(source(root, "list.csv").read(("angle", "speed"))) == {"a.mp4": (3.5, 1.0)}
    (root / "rows.csv").write_text("a.mp4,3.5,1\n")
    assert source(root, "rows.csv").read().class_names == ("value 1", "value 2")
    assert source(root, "rows.csv").read(("angle", "speed")).class_names == ("angle", "speed")
    with pytest.raises(UserError, match="no column 'depth'; its columns are 'speed', 'angle'"):
        source(root, "list.csv").read(("angle", "depth"))
    with pytest.raises(UserError, match=r"data\.targets has 'speed', but the model"):
        source(root, "list.csv", targets=["speed"]).read(("angle", "speed"))


def test_the_column_of_paths_may_have_any_name(root: Path) -> None:
    (root / "list.csv").write_text("movie,angle\na.mp4,3.5\n")
    found = source(root, "list.csv", columns={"path": "movie"}).read()
    assert values_in(found) == {"a.mp4": (3.5,)}
    (root / "list.json").write_text('[{"movie": "a.mp4", "path": 3.5}]')
    found = source(root, "list.json", columns={"path": "movie"}).read()
    assert found.class_names == ("path",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4,fast\n", "line 1: 'value' is 'fast', which is no finite number"),
        ("a.mp4,3.5\nmy b.mp4,nan\n", "line 2: 'value' is 'nan'"),
        ("a.mp4,3.5\nmy b.mp4,-inf\n", "line 2: 'value' is '-inf'"),
        ("a.mp4,1e31\n", "line 1: 'value' is '1e31'"),
        ("a.mp4,1_000\n", "line 1: 'value' is '1_000'"),
        ("a.mp4,٣\n", "line 1: 'value' is '٣'"),
        (f"a.mp4,{'1' * 101}\n", "line 1: 'value' is '1111"),
        ("path,angle,speed\na.mp4,1,\n", "line 2 has no 'speed'"),
        ("path,angle,speed\na.mp4,1\n", "line 2 has no 'speed'"),
        ("path,angle\na.mp4,1,2\n", "line 2 has 3 fields"),
        ("path,angle,angle\na.mp4,1,2\n", "line 1: two columns have the same name"),
        ("path\na.mp4\n", "line 1"),
        ("movie,angle\na.mp4,1\n", "line 1: 'angle' is no number; .*data.columns={path: NAME}"),
        ("path,fold,angle\na.mp4,1,2\n", "a column 'fold', which is rarely to be predicted"),
        ("a.mp4,1\nmy b.mp4,1,2\n", "line 2 has 2 numbers, line 1 has 1"),
        ("a.mp4,1\na.mp4,2\n", "lines 1 and 2: 'a.mp4' has '1.0' in one and '2.0' in the other"),
        (
            "a.mp4,1234567\na.mp4,1234568\n",
            "has '1234567.0' in one and '1234568.0' in the other",
        ),
        ("a.mp4\n", "line 1: 'a.mp4' has no number"),
        ("../a.mp4,1\n", "none of the 1 videos|leads out"),
        ("s3://a.mp4,1\n", "is not the path of a video"),
        ("gone.mp4,1\n", "none of the 1 videos"),
        ("", "lists no videos"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(root: Path, content: str, message: str) -> None:
    (root / "list.csv").write_text(content)
    with pytest.raises((UserError, FileNotFoundError), match=message):
        source(root, "list.csv").read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected rows"),
        ("7", "expected rows"),
        ('{"a.mp4": "3"}', None),
        ('{"a.mp4": true}', "entry 1: 'value' is true"),
        ('{"a.mp4": 1e999}', "entry 1: 'value' is inf"),
        ('{"a.mp4": NaN}', "NaN is no number"),
        ('{"a.mp4": null}', "entry 1 has no 'value'"),
        ('{"a.mp4": 1, "my b.mp4": [1]}', "entry 2: .* not of the form of entry 1"),
        ('{"a.mp4": [1, 2], "my b.mp4": [1]}', "entry 2: .* not of the form of entry 1"),
        ('{"a.mp4": {"x": 1}, "my b.mp4": {"y": 1}}', "entry 2 has no 'x'"),
        ('{"a.mp4": {}}', "entry 1"),
        ('[{"x": 1}]', "entry 1: .* has no path"),
        ('[{"path": 3, "x": 1}]', "entry 1: .* has no path"),
        ("[3]", "entry 1: .* has no path"),
        ('{"\\ud800.mp4": 1}', r"entry 1: '\\ud800.mp4' is not the path of a video"),
        ('{"a.mp4": 1' + "0" * 400 + "}", "entry 1: 'value' is"),
    ],
)
def test_json_is_read_or_refused(root: Path, content: str, message: str | None) -> None:
    (root / "list.json").write_text(content)
    if message is None:
        assert values_in(source(root, "list.json").read()) == {"a.mp4": (3.0,)}
        return
    with pytest.raises(UserError, match=message):
        source(root, "list.json").read()


@pytest.mark.parametrize("targets", [[], ["angle", "angle"]])
def test_targets_are_named_once(root: Path, targets: list[str]) -> None:
    (root / "list.csv").write_text(FORMS_OF_TWO["header.csv"])
    with pytest.raises(UserError, match="name each target once"):
        source(root, "list.csv", targets=targets).read()


def test_missing_and_repeated_videos_and_parts_of_videos(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "list.csv").write_text(
        '"a.mp4#t=0,1.5",1\n"a.mp4#t=1.5,3",2\ngone.mp4,3\n"a.mp4#t=0,1.5",1.0\n'
    )
    found = source(root, "list.csv").read()
    assert values_in(found) == {"a.mp4#t=0,1.5": (1.0,), "a.mp4#t=1.5,3": (2.0,)}
    assert list(found.missing) == ["gone.mp4"]
    assert "lists 1 videos more than once" in caplog.text
    assert "1 of the 3 videos" in caplog.text


def test_a_list_is_divided_evenly_over_the_values_and_sources_stay_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).exponential(size=60)
    rows = []
    for i, value in enumerate(values):
        for clip in range(2):
            (tmp_path / f"v{i}_c0{clip}.mp4").touch()
            rows.append(f"v{i}_c0{clip}.mp4,{value}")
    (tmp_path / "train.csv").write_text("\n".join(rows))

    def read(part: str, **options: object) -> RegressionManifest:
        places = [str(tmp_path / name) for name in ("train", "val")]
        first, second = places if part == "train" else places[::-1]
        return RegressionSource(
            part=part, manifest=first, other_manifest=second, folder=str(tmp_path), **options
        ).read()

    caplog.set_level("INFO")
    train, val = read("train"), read("val")
    assert "held out (about a fifth of each quintile of the values; see" in caplog.text
    assert set(train.names).isdisjoint(val.names)
    assert len(train) + len(val) == 120
    assert {n.split("_")[0] for n in train.names}.isdisjoint(n.split("_")[0] for n in val.names)
    edges = np.quantile(values, [0, 0.2, 0.4, 0.6, 0.8, 1])
    counts = np.histogram(val.values, edges)[0]
    assert counts.min() >= 2  # of 24 in each fifth of the values
    assert counts.max() <= 8
    folds = [set(read("val", num_folds=4, fold=fold).names) for fold in range(4)]
    assert len(set.union(*folds)) == sum(map(len, folds)) == 120
    (tmp_path / "val.csv").write_text(rows[0])
    assert len(read("train")) == 120
    with pytest.raises(UserError, match="divides videos that have no list to validate on"):
        read("train", val_share=0.5)


def test_targets_are_standardized_and_a_constant_one_is_refused(root: Path) -> None:
    (root / "list.csv").write_text(FORMS_OF_TWO["header.csv"])
    whole = source(root, "list.csv").read()
    mean, std = standardization_of(whole)
    scaled = (whole.values - mean) / std
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    with pytest.raises(UserError, match=r"'?speed'? is 1 in all 1 training videos|angle is 3\.5"):
        standardization_of(whole.take([0]))


def test_a_constant_target_whose_deviation_is_a_rounding_error_is_refused(root: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (root / name).touch()
    (root / "list.csv").write_text("a.mp4,0.1\nb.mp4,0.1\nc.mp4,0.1\n")
    whole = source(root, "list.csv").read()
    assert whole.values.std() > 0
    with pytest.raises(UserError, match=r"value is 0\.1 in all 3 training videos"):
        standardization_of(whole)


def test_a_manifest_checks_its_parts_and_tells_values_apart(root: Path) -> None:
    rows = [(1, "a.mp4", (1.0, 2.0)), (2, "my b.mp4", (3.0, 4.0))]
    from video_mvit.data.lists.regression_manifest import ValueRow

    found = find_values("list", str(root), [ValueRow(*row) for row in rows], ("x", "y"))
    turned = found.in_class_order(("y", "x"))
    assert turned.values.tolist() == [[2, 1], [4, 3]]
    assert found.in_class_order(None) is found
    assert found.take([1]).values.tolist() == [[3, 4]]
    other = RegressionManifest(**{**vars(found), "values": found.values + 1})
    assert len({found.digest(), turned.digest(), other.digest()}) == 3
    for wrong in (found.values[:1], found.values.astype(np.float32), found.values * np.nan):
        with pytest.raises(UserError, match="values are"):
            RegressionManifest(**{**vars(found), "values": wrong})
