"""The export stage: the fine-tuned student as ONNX files that need no PyTorch."""
