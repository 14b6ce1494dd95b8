"""``line-audit compare``: two runs of the same images, or two nights, held against each other."""
