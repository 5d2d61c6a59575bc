"""Host toolboxes are attached here; nothing outside imports a host package."""
