"""The MMDetection3D adapter."""
