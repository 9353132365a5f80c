"""What several test files make or undo: small studies, results and names."""

import re


def unslug(text: str) -> str:
    """Return the class name that `slug` made a text of."""
    return re.sub(r":([0-9A-F]+):", lambda found: chr(int(found[1], 16)), text)
