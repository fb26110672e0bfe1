"""A checkpoint and photographs -> verdicts and explanations; knows neither Trainer nor data module."""
