"""The file of a chip: written whole, merged by shape, valid in the package."""

import msgspec

from tests.engine.test_tuning import ENTRY, FILE, MEASUREMENT
from upcurve.engine.tuning import FOLDER
from upcurve.engine.tuning_file import Entry, Measurement, Tuning


def test_new_entries_replace_those_at_their_shapes_only(tmp_path):
    other = {**ENTRY, "shape": {"rows": 8, "columns": 512}}
    path = tmp_path / "deep" / "chip.json"
    before = msgspec.convert({**FILE, "entries": [ENTRY, other]}, Tuning)
    measurement = msgspec.convert({**MEASUREMENT, "by": "somebody else"}, Measurement)
    new = msgspec.convert({**other, "measurement": "second", "microseconds": 1.0}, Entry)
    before.merged("second", measurement, [new]).write(path)
    after = Tuning.read(path)
    assert {each.measurement: each.microseconds for each in after.entries} == {
        "first": 3.5,
        "second": 1.0,
    }
    assert list(after.measurements) == ["first", "second"]
    last = msgspec.convert({**ENTRY, "measurement": "second"}, Entry)
    assert list(after.merged("second", measurement, [last]).measurements) == ["second"]
    assert [file.name for file in path.parent.iterdir()] == ["chip.json"]


def test_the_files_in_the_package_are_valid_and_named_after_their_chip():
    for path in FOLDER.glob("*.json"):
        assert Tuning.read(path).chip == path.stem
