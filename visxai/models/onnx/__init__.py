"""ONNX files as models: run by ONNX Runtime, or converted for gradients."""
