"""The data side: the demonstration's sources, pulling what data.dvc pins, adding the user's own files."""
