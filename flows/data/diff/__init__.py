"""What differs between two versions of the data: rows, labels, lengths and files, compared out of core."""
