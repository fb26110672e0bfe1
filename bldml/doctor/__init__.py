"""The doctor: checks, before a job is queued, that a fit would run. It changes nothing and trains nothing."""
