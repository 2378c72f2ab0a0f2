"""Where a month of trips comes from: TLC's own addresses, files, or a simulated city."""
