"""Names and things of the stories."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GIRLS = _words("""
Ada Amy Anna Bella Carla Clara Diana Ella Emma Eva Fatima Grace Hana Ines Julia Kate Lena Lily
Maria Maya Mia Nina Nora Olga Priya Rosa Ruth Sara Sofia Tina Vera Wendy Yara Zoe
""")
BOYS = _words("""
Adam Alex Amir Ben Carl Dan David Eli Emil Finn George Hugo Ivan Jack James Karl Leo Liam Lucas
Mark Max Noah Omar Oscar Paul Peter Ravi Sam Simon Theo Tom Victor Will Yusuf
""")
THINGS = _words("""
apples balls beads books bottles buttons cards coins cookies crayons cupcakes erasers flowers
grapes marbles muffins oranges pears pencils pens photos plums postcards puzzles ribbons seeds
shells stamps stickers stones toys tickets
""")
DAYS = _words("""
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
""")
BOXES = (
    ("box", "boxes"),
    ("bag", "bags"),
    ("pack", "packs"),
    ("basket", "baskets"),
    ("jar", "jars"),
    ("tray", "trays"),
)
GOODS = (
    ("notebook", "notebooks"),
    ("shirt", "shirts"),
    ("hat", "hats"),
    ("lamp", "lamps"),
    ("book", "books"),
    ("ticket", "tickets"),
    ("plant", "plants"),
    ("ball", "balls"),
    ("cake", "cakes"),
    ("chair", "chairs"),
    ("toy", "toys"),
    ("cup", "cups"),
)
GROUPS = (
    ("school", "students"),
    ("club", "members"),
    ("camp", "children"),
    ("choir", "singers"),
    ("library", "visitors"),
    ("museum", "guests"),
)
