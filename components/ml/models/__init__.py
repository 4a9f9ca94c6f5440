"""Models: their folders, layers, students and scores."""
