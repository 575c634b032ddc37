"""A table on stdout, as text or as Markdown."""


def print_table(heads, rows, form):
    """Print rows of text under their heads; a row may be shorter, its last cell then runs on."""
    if form == "markdown":
        full = [[*row, *[""] * (len(heads) - len(row))] for row in rows]
        for cells in (heads, ["---"] * len(heads), *full):
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return
    whole = [row for row in rows if len(row) == len(heads)]
    widths = [max(map(len, column)) for column in zip(heads, *whole, strict=True)]
    for row in (heads, *rows):
        cells = zip(row, widths, strict=False)
        print("  ".join(f"{cell:>{width}}" for cell, width in cells).rstrip())
