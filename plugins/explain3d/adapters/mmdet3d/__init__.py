"""The MMDetection3D adapter."""

from .spconv_compat import ensure_cpu_backward

ensure_cpu_backward()
