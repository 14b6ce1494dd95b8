"""``line-audit show``: pictures of single rows of a run, at the size of their images."""
