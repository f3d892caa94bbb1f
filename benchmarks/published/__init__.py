"""Published rates made again from the public answers and labels behind them: `make published`."""
