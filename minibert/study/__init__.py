"""Looking inside: how the model compares with transformers, tensor by tensor."""
