"""A robot arm at a table: five tasks with sparse rewards, on OGBench's `scene`. See README.md beside this file."""

from qsft.envs.manipulation.env import BlockedDrawer, ClosedDrawer, Drawer, Manipulation, Pick, Place

__all__ = ["BlockedDrawer", "ClosedDrawer", "Drawer", "Manipulation", "Pick", "Place"]
