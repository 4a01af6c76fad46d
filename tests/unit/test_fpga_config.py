"""Devices, array descriptions and their errors."""

import pytest

from bitfold.errors import InputError, UsageError
from bitfold.fpga_sim import ArrayConfig, devices, find_device


@pytest.mark.parametrize(
    ("alias", "name"),
    [("ZU3EG", "zu3eg"), ("ultra96", "zu3eg"), ("xc7z020", "z7020"), ("Pynq-Z2", "z7020"),
     ("pynq_z1", "z7020"), ("kv260", "zu5ev"), ("Alveo-U250", "u250")],
)  # fmt: skip
def test_a_device_answers_to_its_aliases_in_any_case(alias, name):
    assert find_device(alias).name == name


def test_zu3eg_has_the_totals_of_its_hls_report():
    device = find_device("zu3eg")
    assert device.available == {"lut": 70560, "ff": 141120, "dsp": 360, "bram36": 216, "uram": 0}
    assert device.limits == {"lut": 49392, "ff": 70560, "dsp": 288, "bram36": 172, "uram": 0}


def test_names_and_aliases_are_unique():
    names = [name for d in devices().values() for name in (d.name, *d.aliases)]
    assert len(names) == len(set(names))


def test_every_number_has_a_source_and_a_certainty():
    numbers = [q for device in devices().values() for q in device.quantities.values()]
    assert all(q.source and q.certainty in ("high", "medium", "low") for q in numbers)


def test_every_card_with_a_shell_has_a_die_and_a_user_region():
    cards = {name for name in devices() if name.startswith("u")}
    assert {f"{name}-user" for name in cards if "-" not in name} == {n for n in cards if "-" in n}
    for name in cards:
        if "-" not in name:
            die, user = find_device(name), find_device(f"{name}-user")
            assert all(user.available[key] <= die.available[key] for key in die.available)


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        find_device("zu3ev")
    assert "unknown device 'zu3ev'" in caught.value.what
    assert caught.value.todo.startswith("Did you mean zu")
    assert "zu3eg" in caught.value.todo
    assert "z7020" in caught.value.todo


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"cols": 2.5}, "cols is 2.5"),
        ({"lanes": True}, "lanes is True"),
        ({"drain": "fast"}, "drain 'fast' is unknown"),
        ({"mode": "timeloop"}, "mode 'timeloop' is unknown"),
        ({"w_bits": 9}, "w_bits is 9"),
        ({"clock_mhz": -1.0}, "clock_mhz is -1.0"),
        ({"dram_bytes_per_cycle": float("nan")}, "dram_bytes_per_cycle is nan"),
        ({"scalesim_ceil": 1}, "scalesim_ceil is 1"),
        ({"mode": "scalesim", "lanes": 4}, "scalesim mode has one multiplier per PE, not 4 lanes"),
    ],
)
def test_an_impossible_array_is_a_usage_error(changes, text):
    with pytest.raises(UsageError) as caught:
        ArrayConfig(**changes)
    assert caught.value.what == text


@pytest.mark.parametrize(
    ("changes", "what", "todo"),
    [
        ({"pe": "binary", "w_bits": 2}, "a binary PE has operands of 1 bits, w_bits is 2",
         "Leave w_bits out, or use pe parallel."),
        ({"pe": "dsp", "w_bits": 4, "a_bits": 4, "lanes": 5},
         "5 lanes do not divide into DSP blocks of 2 products of 4 x 4 bits", "Use 4 or 6 lanes."),
        ({"pe": "dsp", "w_bits": 2, "a_bits": 3},
         "1 lanes do not divide into DSP blocks of 2 products of 2 x 3 bits", "Use 2 lanes."),
        ({"dram_latency": -1}, "dram_latency is -1", "Use an integer 0 … 1048576."),
        ({"acc_bits": 64}, "acc_bits is 64", "Use an integer 1 … 48."),
        ({"weight_words": 0}, "weight_words is 0", "Use an integer 1 … 67108864."),
        ({"map_ram": "hbm"}, "map_ram 'hbm' is unknown", "Use bram, uram."),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_what_can(changes, what, todo):
    with pytest.raises(UsageError) as caught:
        ArrayConfig(**changes)
    assert (caught.value.what, caught.value.todo) == (what, todo)


def test_finn_mode_takes_a_folding():
    with pytest.raises(UsageError, match="FINN's pipeline has a folding a layer, not an array"):
        ArrayConfig(mode="finn")


def test_settings_are_texts():
    array = ArrayConfig().with_settings(["lanes=4", "drain=shadow", "clock_mhz=1.5", "map_words=9"])
    assert array == ArrayConfig(lanes=4, drain="shadow", clock_mhz=1.5, map_words=9)


@pytest.mark.parametrize(
    ("text", "what"),
    [("lanes", "'lanes' is no setting of the array"), ("lane=4", "'lane=4' is no setting"),
     ("lanes=four", "lanes is 'four'"), ("lanes=", "lanes is ''")],
)  # fmt: skip
def test_a_wrong_setting_says_what_is_wrong(text, what):
    with pytest.raises(UsageError, match=what):
        ArrayConfig().with_settings([text])


def test_an_array_is_read_from_toml(tmp_path):
    path = tmp_path / "array.toml"
    path.write_text('[array]\nrows = 8\ncols = 4\ndrain = "shadow"\nclock_mhz = 150\n', "utf-8")
    assert ArrayConfig.from_toml(path) == ArrayConfig(rows=8, cols=4, drain="shadow", clock_mhz=150)


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("rows = [", InputError, "not a readable TOML file"),
        ("rows = 8", UsageError, r"one table \[array\] is needed, found \['rows'\]"),
        ("array = 3", UsageError, r"one table \[array\] is needed"),
        ("[array]\nrow = 8", UsageError, r"unknown keys \['row'\]"),
        ("[array]\nrows = '8'", UsageError, "rows is '8'"),
        ("[array]\ndrain = ['shared']", UsageError, "is unknown"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, error, what):
    path = tmp_path / "array.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(error, match=what):
        ArrayConfig.from_toml(path)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="not a readable TOML file"):
        ArrayConfig.from_toml(tmp_path / "none.toml")
