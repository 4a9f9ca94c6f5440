"""What peft adds to a model."""
