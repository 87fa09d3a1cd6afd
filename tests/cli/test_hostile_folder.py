"""Folders that hostile code has filled are removed, and nothing else is."""

import os

import pytest

from gptoss.cli.base.hostile_folder import hostile_folder, remove_folder


def nested(path, levels: int) -> None:
    """Make folders in folders, deeper than a path can say."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path)
        for level in range(levels):
            if level % 500 == 0:
                with open("file", "w"):  # noqa: PTH123
                    pass
            os.mkdir("d" * 20)  # noqa: PTH102
            os.chdir("d" * 20)
    finally:
        os.fchdir(before)
        os.close(before)


def test_deep_folders_and_odd_modes_are_removed(tmp_path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    nested(folder, 2500)
    for mode in (0o000, 0o300, 0o500):
        (folder / f"m{mode}" / "inner").mkdir(parents=True)
        (folder / f"m{mode}" / "inner/file").touch()
        (folder / f"m{mode}" / "inner").chmod(mode)
        (folder / f"m{mode}").chmod(mode)
    (folder / "link").symlink_to(outside)
    (folder / ".moved-1").mkdir()
    (folder / ".moved-1" / ".moved-2").mkdir()
    os.mkfifo(folder / "pipe")
    remove_folder(folder)
    assert not folder.exists()
    assert (outside / "kept").exists()
    with pytest.raises(FileNotFoundError):
        remove_folder(folder)
    (tmp_path / "to outside").symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        remove_folder(tmp_path / "to outside")
    assert (outside / "kept").exists()


def test_temporary_folder_goes_whatever_is_in_it() -> None:
    with hostile_folder("gptoss-test-") as folder:
        nested(folder, 1200)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
