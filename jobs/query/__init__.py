"""Questions to the results of committed runs, in SQL: ``line-audit sql``."""
