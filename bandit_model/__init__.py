"""The files of all-MiniLM-L6-v2 for the onnx backend of bandit-service, beside this one."""
