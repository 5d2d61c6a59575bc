"""What the adapters share: attaching, selecting, tracing and recording, whatever the host.

Nothing here imports a host; spconv is looked for when it is needed.
"""
