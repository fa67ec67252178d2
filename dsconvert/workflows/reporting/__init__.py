"""The page that shows runs, made from their report.json alone."""
