"""What a report comes to, in a word: apart from the statistics that find it, which take a second to import."""

from __future__ import annotations

from typing import Literal

# unknown: there was nothing yet to hold the night against.
Verdict = Literal["unknown", "quiet", "watch", "alarm"]
UNKNOWN_SAID = "cannot tell yet"
