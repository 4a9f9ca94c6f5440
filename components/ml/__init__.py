"""Models, losses and training: plain torch, transformers and peft, no configuration files."""
