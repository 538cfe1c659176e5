"""Export to ONNX and OpenVINO: the graph, int8, parity with PyTorch, and running what was exported.

May import finetuning (for the task's metric), models, tasks, text and run; latency imports this folder.
"""
