"""Write the technique table of README.md anew from the headers of the files in stabilizers/.

Run `python docs/techniques.py`; a test fails while the table is stale.
"""

from pathlib import Path

from spikeless.stabilizers import headers

BEGIN, END = "<!-- techniques -->", "<!-- /techniques -->"
README = Path(__file__).parent.parent / "README.md"


def table() -> str:
    """The table, one row a technique."""
    rows = [("Technique", "What it does", "Prevents", "Excludes", "Reference"), ("---",) * 5]
    for header in headers():
        excludes = ", ".join(f"`{name}`" for name in header.conflicts) or "–"
        rows.append((f"`{header.name}`", header.summary, header.prevents, excludes, header.reference))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def with_table(text: str) -> str:
    """The README with the table as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
