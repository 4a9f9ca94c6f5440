"""What the pipeline computes: pure stages, files in and files out."""
