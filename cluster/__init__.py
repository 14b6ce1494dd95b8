"""How the audit runs on many machines."""
