"""Export to ONNX and OpenVINO: the graph, int8, parity with PyTorch, running what was exported."""
