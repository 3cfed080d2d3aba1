import pytest

from dssm_core.errors import DataError
from dssm_core.inspection.files import find_groups


def patterns(folder, *names):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a,b\n")
    return {group.pattern: len(group.files) for group in find_groups(folder)}


def test_files_that_differ_in_numbers_are_one_group(tmp_path):
    names = [f"clicks_hour_{n:03d}.csv.gz" for n in range(3)]
    assert patterns(tmp_path, *names) == {"clicks_hour_*.csv.gz": 3}


def test_a_pattern_matches_no_file_of_another_group(tmp_path):
    found = patterns(tmp_path, "2024-03-01.csv", "2024-03-02.csv", "items.csv")
    assert found == {"[0-9]*.csv": 2, "items.csv": 1}


def test_folders_by_day_and_names_of_spark(tmp_path):
    found = patterns(
        tmp_path, "day=2024-03-01/part-0001-a1f.parquet", "day=2024-03-02/part-0002-b.parquet"
    )
    assert found == {"day=*/part-*.parquet": 2}


def test_characters_of_patterns_in_a_name_are_its_own(tmp_path):
    assert patterns(tmp_path, "[a].csv") == {"[[]a].csv": 1}
    assert [file.name for file in tmp_path.glob("[[]a].csv")] == ["[a].csv"]


def test_what_is_no_data_is_left_out(tmp_path):
    names = ["README", "readme.txt", "_SUCCESS", ".hidden/x.csv", "notes.md", "log.csv"]
    assert patterns(tmp_path, *names) == {"log.csv": 1}


def test_a_file_is_its_own_group_and_the_first(tmp_path):
    patterns(tmp_path, "clicks.log1", "big.csv", "items.csv")
    groups = find_groups(tmp_path / "clicks.log1")
    assert groups[0].pattern == "clicks.log1"
    assert {group.pattern for group in groups[1:]} == {"big.csv", "items.csv"}


def test_some_of_many_files_are_evenly_spaced(tmp_path):
    patterns(tmp_path, *(f"c{n:02d}.csv" for n in range(20)))
    (group,) = find_groups(tmp_path)
    some = [int(file.stem[1:]) for file in group.some(4)]
    assert some[0] == 0
    assert some[-1] == 19
    assert len(some) <= 5
    assert group.some(100) == list(group.files)


@pytest.mark.parametrize("name", ["", "photo.png"])
def test_a_folder_without_a_log_is_refused(tmp_path, name):
    if name:
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=name or "there is no file in it"):
        find_groups(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "nope", tmp_path / "a\1", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=r"neither a folder nor a file|too long"):
            find_groups(path)
