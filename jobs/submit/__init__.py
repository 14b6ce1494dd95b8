"""A command on a Ray cluster that runs elsewhere: submitted as a job, followed, and ended with its own exit code."""
