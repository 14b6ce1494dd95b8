"""``line-audit verify``: whether what a committed run left behind is still what it was."""
