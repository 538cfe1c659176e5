"""Export to ONNX and OpenVINO: the graph, int8, parity with PyTorch, and running what was exported.

May import models, tasks, text and run; latency imports this folder, to time its files.
"""
