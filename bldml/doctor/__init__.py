"""The command `doctor`: checks before a job is submitted that a fit would run; changes and trains nothing."""
