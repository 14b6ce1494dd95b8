"""What a person starts: audit, train, the app, the demo, and the command line. Storage access lives here."""

import logging

# Events are for JSON logs (jobs.monitoring.logs); where there are none, nobody is told of them.
logging.getLogger(__name__).addHandler(logging.NullHandler())
