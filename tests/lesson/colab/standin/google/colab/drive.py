"""A Drive that is mounted by making its folder."""

from pathlib import Path


def mount(mountpoint: str, force_remount: bool = False) -> None:
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)
    print(f"Mounted at {mountpoint}")
