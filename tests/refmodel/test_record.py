"""Records whose fields grow: they behave as dataclasses do, before and after."""

import dataclasses
import pickle

import pytest

from refmodel.compression.schemes import LayerSetting
from refmodel.golden.devices import Device
from refmodel.record import Record


@dataclasses.dataclass(frozen=True)
class Lot:
    """What somebody declares."""

    count: int = 3


def test_a_record_that_is_older_than_a_field_has_its_default():
    @dataclasses.dataclass(frozen=True, init=False, eq=False, repr=False)
    class Own(Record):
        name: str = "a"

    old = Own(name="b")
    with pytest.raises(AttributeError, match="'Own' object has no attribute 'count'"):
        _ = old.count
    with pytest.raises(TypeError, match="unexpected keyword argument 'count'"):
        Own(count=4)
    Own.declare(Lot)
    assert old.count == 3
    assert old == Own(name="b", count=3) != Own(name="b", count=4)
    assert hash(old) == hash(Own(name="b"))
    assert repr(Own(count=4)) == "Own(name='a', count=4)"


@pytest.mark.parametrize(
    "record",
    [
        LayerSetting(scheme="orc", keep=0.25, patterns=3),
        Device(on_off_ratio=5.0, read_noise=0.1, sources={"read_noise": "a guess"}),
    ],
    ids=["setting", "device"],
)
def test_records_are_copied_compared_and_pickled_as_dataclasses(record):
    assert pickle.loads(pickle.dumps(record)) == record
    assert dataclasses.replace(record) == record
    assert type(record)(**dataclasses.asdict(record)) == record
    fields = dataclasses.asdict(record).items()
    name, value = next(each for each in fields if type(each[1]) in {int, float})
    assert dataclasses.replace(record, **{name: value / 2 if value != 1 else 2}) != record
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'kept'"):
        type(record)(kept=1)


def test_a_setting_has_the_fields_that_schemes_declare():
    names = {each.name for each in dataclasses.fields(LayerSetting)}
    assert names == {
        *("scheme", "channels", "positions", "keep", "structure_keep", "recover"),
        *("patterns", "terms", "rounds", "signed", "packed"),
    }
