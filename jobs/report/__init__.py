"""The morning report of a committed run: one page for people, ``report.html``, and its figures, ``report.json``."""
