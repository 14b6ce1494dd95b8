"""What a person starts: audit, train, the app, the demo, and the command line. Storage access lives here."""
