"""The report of a run for people, as one HTML page, and the card of its model."""
